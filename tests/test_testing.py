"""``autolora.testing.rendered``: the same text and targets that training gets."""

from __future__ import annotations

import json

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from autolora.quickstart import resolve
from autolora.spec import SpecError
from autolora.tasks.causal_lm.preparation import prepare
from autolora.tasks.causal_lm.spec import DataSpec
from autolora.tasks.data.errors import DataError
from autolora.testing import rendered


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(resolve("builtin:quickstart"))


@pytest.fixture(scope="module")
def byte_tokenizer():
    """Of one token a byte, so that characters outside ASCII are several tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate([*alphabet, "</s>"])}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")


def test_a_prompt_is_not_learned_and_the_completion_is_with_its_end(tokenizer):
    rows = [{"question": "Anna has 2 apples.", "answer": "2"}, {"question": "Ben?", "answer": "none"}]
    (text, learned), (other, _) = rendered(rows, tokenizer, prompt="question", completion="answer")
    assert text.removeprefix(tokenizer.bos_token or "") == f"Anna has 2 apples.\n2{tokenizer.eos_token}"
    assert learned == [f"2{tokenizer.eos_token}"]
    assert "Ben?\nnone" in other


def test_it_is_what_training_gets(tokenizer, tmp_path):
    rows = [{"prompt": f"How many are {i} and 3?", "completion": f"They are {i + 3}."} for i in range(20)]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    spec = DataSpec(train=str(path), eval_size=1)
    data = prepare(spec, tokenizer, max_length=64, examples=None, seed=0, cache_dir=None)
    shown = rendered([rows[index] for index in data.train.indices], tokenizer)
    for row, (text, learned) in enumerate(shown):
        span = slice(data.train.offsets[row], data.train.offsets[row + 1])
        ids, targets = data.train.tokens[span], data.train.targets[span]
        assert tokenizer.decode(ids) == text
        assert [tokenizer.decode(ids[targets])] == learned


def test_several_turns_are_several_stretches(tokenizer, monkeypatch):
    template = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}</{{ m['role'] }}>\n{% endfor %}"
    monkeypatch.setattr(tokenizer, "chat_template", template + "{% if add_generation_prompt %}<assistant>{% endif %}")
    messages = [{"role": role, "content": text} for role, text in (("user", "a"), ("assistant", "b")) * 2]
    [(text, learned)] = rendered([{"messages": messages}], tokenizer)
    assert text.count("<user>a</user>") == 2
    assert learned == ["b</assistant>"] * 2


def test_characters_of_several_tokens_stay_whole(byte_tokenizer):
    [(text, learned)] = rendered([{"prompt": "¿Qué?", "completion": "日本 ✓"}], byte_tokenizer)
    assert text == "¿Qué?\n日本 ✓</s>"
    assert learned == ["日本 ✓</s>"]


def test_rows_of_tokens_show_what_their_labels_say(byte_tokenizer):
    ids = byte_tokenizer("abc def")["input_ids"]
    labels = [-100, ids[1], ids[2], -100, *ids[4:]]
    assert rendered([{"input_ids": ids, "labels": labels}], byte_tokenizer) == [("abc def", ["bc", "def"])]


def test_no_rows_are_no_texts(tokenizer):
    assert rendered([], tokenizer) == []


def test_an_unknown_key_and_a_bad_row_are_named(tokenizer):
    with pytest.raises(SpecError, match=r"data\.promt: unknown key; did you mean 'prompt'"):
        rendered([{"prompt": "a", "completion": "b"}], tokenizer, promt="prompt")
    with pytest.raises(DataError, match="rows, row 2, column 'completion' is empty"):
        rendered([{"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": None}], tokenizer)


def test_a_row_with_nothing_to_learn_has_no_stretches(tokenizer, monkeypatch):
    refusing = "{% if messages | length > 2 %}{{ raise_exception('too long') }}{% endif %}"
    monkeypatch.setattr(tokenizer, "chat_template", refusing + "{% for m in messages %}{{ m.content }}{% endfor %}")
    exchange = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    rows = [{"messages": messages} for messages in (exchange, exchange * 2, exchange[:1])]
    assert [learned for _, learned in rendered(rows, tokenizer)] == [[f"b{tokenizer.eos_token}"], [], []]

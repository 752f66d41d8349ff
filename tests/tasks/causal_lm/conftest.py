"""A tokenizer of one token a character, so that a test can count tokens by eye, and files of rows."""

import json
import string

import pytest
from tokenizers import Tokenizer, decoders, models, processors
from transformers import PreTrainedTokenizerFast

from autolora.tasks.causal_lm.preparation import prepare
from autolora.tasks.causal_lm.spec import DataSpec

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="session")
def make_tokenizer():
    def make(*, merges=(), adds_bos=False, bos="<s>", eos="</s>", chat_template=None, **kwargs):
        special = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
        characters = sorted(set(string.printable) - set("\r\x0b\x0c"))
        vocabulary = {token: i for i, token in enumerate([*special, *characters, *("".join(m) for m in merges)])}
        backend = Tokenizer(models.BPE(vocab=vocabulary, merges=list(merges), unk_token="<unk>"))
        backend.decoder = decoders.Fuse()
        if adds_bos:
            backend.post_processor = processors.TemplateProcessing(
                single=f"{bos} $A", special_tokens=[(bos, vocabulary[bos])]
            )
        return PreTrainedTokenizerFast(
            tokenizer_object=backend,
            bos_token=bos,
            eos_token=eos,
            unk_token="<unk>",
            additional_special_tokens=["<|im_start|>", "<|im_end|>"],
            chat_template=chat_template,
            **kwargs,
        )

    return make


@pytest.fixture(scope="session")
def tokenizer(make_tokenizer):
    return make_tokenizer()


@pytest.fixture(scope="session")
def chat_tokenizer(make_tokenizer):
    return make_tokenizer(chat_template=CHATML, eos="<|im_end|>")


@pytest.fixture
def write(tmp_path):
    """Write rows as JSONL and return the path."""

    def write(name, rows):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return write


@pytest.fixture
def prepare_rows(write, tokenizer):
    """Prepare rows with an evaluation row of their own, so that all of them are training rows."""

    def prepare_rows(rows, *, tokenizer=tokenizer, max_length=200, examples=None, eval_rows=None, **options):
        first = rows[0]
        spec = DataSpec(train=write("train.jsonl", rows), eval=write("eval.jsonl", eval_rows or [first]), **options)
        return prepare(spec, tokenizer, max_length=max_length, examples=examples, seed=0, cache_dir=None)

    return prepare_rows


@pytest.fixture(scope="session")
def learned():
    """(whole text, learned text) of one row of a split."""

    def learned(tokenizer, split, index):
        span = slice(split.offsets[index], split.offsets[index + 1])
        tokens, targets = split.tokens[span], split.targets[span]
        return tokenizer.decode(tokens), tokenizer.decode(tokens[targets])

    return learned


def numbered(count, start=0):
    """Distinct prompt/completion rows."""
    return [{"prompt": f"p{i}", "completion": f"c{i}"} for i in range(start, start + count)]


@pytest.fixture(scope="session", name="numbered")
def numbered_fixture():
    return numbered

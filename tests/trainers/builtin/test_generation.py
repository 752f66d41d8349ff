"""Generated answers end where training ends them, and a perfectly fitted model scores 1.0."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch
from transformers import GenerationConfig, GPT2Config, LlamaConfig, RwkvConfig, xLSTMConfig

from autolora import bases
from autolora.metrics import MetricError
from autolora.space import Config
from autolora.trainers.builtin.stops import Stops, _common_end
from autolora.trainers.builtin.trainer import BuiltinTrainer
from autolora.trainers.builtin.workbench import Workbench, prepare_data
from tests.support.checkpoints import byte_tokenizer, saved, tiny
from tests.support.specs import small_spec

TURNS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}{{ m.content }}"
    "<|im_end|>\n{% endgeneration %}{% else %}{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PLAIN = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n###\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
SPECIAL = ["<|im_start|>", "<|im_end|>"]
ANSWERS = ["yes", "no way"]


def chats(answers=ANSWERS):
    return [
        {
            "messages": [
                {"role": "user", "content": f"{i}?"},
                {"role": "assistant", "content": answers[i % len(answers)]},
            ]
        }
        for i in range(16)
    ]


def pairs(answers=ANSWERS):
    return [{"prompt": f"{i}?\n", "completion": answers[i % len(answers)]} for i in range(16)]


def fit(folder, rows, tokenizer=None, config=LlamaConfig, shape=None, steps=80, **overrides):
    """A trainer whose base has learned all rows by heart."""
    tokenizer = tokenizer or byte_tokenizer()
    model = saved(folder / "model", tiny(config, **{"vocab_size": len(tokenizer), **(shape or {})}), tokenizer)
    data = folder / "rows.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    settings = {
        "model": str(model),
        "data": {"train": str(data), "eval": str(data), "eval_size": len(rows) - 1},
        "metric": {"name": "exact_match", "max_new_tokens": 24},
        "training.examples": None,
    }
    spec = small_spec(**{**settings, **overrides})
    base = bases.load(spec)
    base.model.requires_grad_(True)
    prepared = prepare_data(spec, base.tokenizer, folder / "data")
    batch = prepared.eval.batch(range(len(prepared.eval)), 0)
    optimizer = torch.optim.AdamW(base.model.parameters(), 1e-2)
    for _ in range(steps):
        base.model(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(base.model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    base.model.requires_grad_(False)
    return BuiltinTrainer(Workbench.of(spec, folder, base, prepared))


@pytest.fixture
def fitted(tmp_path):
    return partial(fit, tmp_path)


@pytest.fixture(scope="module")
def recited(tmp_path_factory):
    """A trainer whose base answers "yyyy yyyy" to everything."""
    return fit(tmp_path_factory.mktemp("recited"), pairs(["yyyy yyyy"]))


def score(trainer) -> float:
    bench = trainer.bench
    with bench.attached("lora", Config(1e-3, 8, 2, 2.0), 0) as adapted:
        return bench.evaluator.scores(adapted, bench.data.eval).value


@pytest.mark.parametrize("template", [TURNS, MARKED, PLAIN], ids=["special", "white space behind", "plain text"])
def test_a_chat_stops_at_the_end_of_the_turn(fitted, template):
    trainer = fitted(chats(), byte_tokenizer(template, SPECIAL, eos="<|endoftext|>"))
    assert score(trainer) == 1.0


def test_a_completion_stops_at_eos(fitted):
    assert score(fitted(pairs())) == 1.0


def test_white_space_around_references_does_not_matter(fitted):
    assert score(fitted(pairs([" yes", "no way \n", "\tperhaps"]))) == 1.0


def test_rows_as_long_as_the_positions_of_a_model_are_generated(fitted):
    """Prompts of several lengths, padded on the left, and a row that fills the positions to the last."""
    rows = [{"prompt": "x" * i + "?", "completion": "yes" if i % 2 else "no way"} for i in range(1, 17)]
    rows += [{"prompt": "y" * 20 + "?", "completion": "yes yes y"}, {"prompt": "a", "completion": "b"}]
    shape = {"max_position_embeddings": 32, "n_embd": 32, "n_layer": 2, "n_head": 2}
    trainer = fitted(rows, config=GPT2Config, shape=shape, steps=120)
    assert max(trainer.bench.data.eval.lengths) == 32
    assert score(trainer) == 1.0


@pytest.mark.parametrize(
    "settings",
    [
        {"repetition_penalty": 5.0},
        {"num_beams": 3, "length_penalty": 5.0},
        {"no_repeat_ngram_size": 1},
        {"min_new_tokens": 20},
        {"suppress_tokens": [121]},
        {"do_sample": True, "temperature": 100.0, "top_k": 3},
        {"forced_eos_token_id": 5, "eos_token_id": 101},
        {"stop_strings": ["e"], "max_length": 3},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_a_models_generation_config_changes_nothing_and_stays_as_it_was(recited, settings):
    model = recited.bench.base.model
    model.generation_config = own = GenerationConfig(**settings)
    assert score(recited) == 1.0
    assert model.generation_config is own


def test_the_models_own_stops_count_besides(make_bench):
    bench = make_bench(metric="exact_match")
    bench.base.model.generation_config.eos_token_id, before = [7, 9], bench.base.model.generation_config.eos_token_id
    try:
        assert {(7,), (9,), (bench.base.tokenizer.eos_token_id,)} <= set(Stops.of(bench.base, bench.data).sequences)
    finally:
        bench.base.model.generation_config.eos_token_id = before


def test_references_that_are_longer_than_what_is_generated_are_said_before_training(fitted):
    trainer = fitted(pairs(["yes", "a long answer"]), steps=0, **{"metric.max_new_tokens": 5})
    [note] = trainer.about()["warning"]
    assert "7 of 15 answers of the eval split are longer than metric.max_new_tokens=5" in note
    assert note.endswith("the longest has 13 tokens")


def test_a_model_that_cannot_generate_is_refused_before_training(fitted, monkeypatch):
    monkeypatch.setattr("transformers.LlamaForCausalLM.can_generate", classmethod(lambda _: False))
    with pytest.raises(MetricError, match="exact_match generates, which LlamaForCausalLM cannot"):
        fitted(pairs(), steps=0)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (RwkvConfig, "RwkvForCausalLM generates other tokens in a batch with its cache"),
        (xLSTMConfig, r"xLSTMForCausalLM cannot generate \(ValueError: "),
    ],
)
def test_a_model_whose_generation_goes_wrong_is_refused_before_training(fitted, config, message):
    """By transformers' own fault: one knows no padding, the cache of the other does not fit."""
    shape = {"hidden_size": 64, "attention_hidden_size": 64, "num_heads": 4}
    with pytest.raises(MetricError, match=message):
        fitted(pairs(), config=config, shape=shape, steps=0)


class TestStops:
    def test_an_answer_is_cut_before_its_first_stop(self):
        stops = Stops(((5,), (8, 9)))
        assert stops.cut([1, 2, 5, 3, 5]) == [1, 2]
        assert stops.cut([1, 8, 2, 8, 9, 4]) == [1, 8, 2]
        assert stops.cut([1, 8]) == [1, 8]
        assert stops.cut([]) == []

    def test_generation_ends_once_every_row_has_reached_one(self):
        stops = Stops(((5,), (8, 9)))
        assert stops.reached(torch.tensor([[1, 5], [8, 9], [9, 8]])).tolist() == [True, True, False]
        assert stops.reached(torch.tensor([[5], [9]])).tolist() == [True, False]

    def test_a_text_ends_nearly_all_answers_and_stands_nowhere_else_in_them(self):
        marked = [(number, 7, 8) for number in range(20)]
        assert _common_end(marked) == (7, 8)
        assert _common_end([*marked, (1, 2, 3)]) == (7, 8)  # one was cut
        assert _common_end([(7, 8, *row) for row in marked]) == ()
        assert _common_end([(number,) for number in range(20)]) == ()
        assert _common_end([(5,)] * 20) == ()  # a stop that is the whole answer would leave nothing of it

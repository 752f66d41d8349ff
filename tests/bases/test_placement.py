"""Where a base is placed: straight onto its device, spread over several, or as a model object lies."""

from __future__ import annotations

from types import MappingProxyType

import accelerate.utils
import pytest
import torch
from accelerate import dispatch_model
from transformers import AutoModelForCausalLM

from autolora import bases
from autolora.bases import device as devices
from autolora.bases.given import as_given
from autolora.search import Job
from autolora.space import Config
from autolora.trainers.builtin import segment
from autolora.trainers.builtin.trainer import BuiltinTrainer
from autolora.trainers.builtin.workbench import Workbench, prepare_data
from tests.support.checkpoints import saved, tiny
from tests.support.specs import small_spec

TWO = MappingProxyType({"resources.gpu": 2, "training.device": "auto"})


@pytest.fixture
def asked_for(monkeypatch):
    """The arguments of every ``from_pretrained``; a device map over cards is replaced by one over this CPU."""
    seen = []
    own = AutoModelForCausalLM.from_pretrained

    def from_pretrained(*arguments, **options):
        seen.append(dict(options))
        if options.get("device_map") == "auto":
            del options["max_memory"]
            options["device_map"] = {"": "cpu"}
        return own(*arguments, **options)

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", from_pretrained)
    return seen


@pytest.fixture
def cards(monkeypatch):
    """``cards(n)``: what torch and accelerate report where there are n GPUs."""

    def see(count):
        monkeypatch.setattr(devices, "visible_cards", lambda: count)
        room = {**dict.fromkeys(range(count), 1 << 30), "cpu": 1 << 35}
        monkeypatch.setattr(accelerate.utils, "get_max_memory", lambda: room)

    return see


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_model_is_loaded_straight_onto_its_device(asked_for, dtype):
    bases.load(small_spec(**{"training.dtype": dtype}))
    assert asked_for
    assert all(options["device_map"] == {"": torch.device("cpu")} for options in asked_for)


def test_weights_in_the_dtype_of_their_file_are_pages_of_the_file(tmp_path):
    folder = saved(tmp_path, tiny())
    base = bases.load(small_spec(model=str(folder)))
    with open("/proc/self/maps") as maps:
        spans = [line.split()[0].split("-") for line in maps if str(folder) in line]
    mapped = [(int(begin, 16), int(end, 16)) for begin, end in spans]
    assert all(any(low <= p.data_ptr() < high for low, high in mapped) for p in base.model.parameters())


class TestSeveralCards:
    def test_a_device_that_is_named_is_refused(self, cards):
        cards(2)
        with pytest.raises(bases.ModelError, match=r"resources\.gpu is 2.*training\.device is 'cpu'.*leave"):
            bases.load(small_spec(**{"resources.gpu": 2}))

    def test_a_model_object_on_one_device_is_refused(self, cards):
        cards(2)
        model = tiny()
        spec = small_spec(**TWO).model_copy(update={"model": model})
        with pytest.raises(bases.ModelError, match=r"LlamaForCausalLM given is on 1 device, .*device_map='auto'"):
            bases.load(spec)

    def test_a_model_is_spread_over_as_many_as_are_asked_for(self, cards, asked_for):
        cards(4)
        with pytest.raises(bases.ModelError, match="LlamaForCausalLM is too small to be divided"):
            bases.load(small_spec(**TWO))
        assert asked_for[0]["device_map"] == "auto"
        assert asked_for[0]["max_memory"] == {0: 1 << 30, 1: 1 << 30}, "nothing is offloaded to the CPU"

    def test_a_process_that_sees_fewer_says_so(self, cards):
        cards(1)
        base = bases.load(small_spec(**TWO))
        assert any("this process sees 1 of the 2 GPUs" in note for note in base.notes)

    @pytest.mark.parametrize("gpu", [None, 0, 0.5, 1])
    def test_one_or_a_share_is_one_device(self, cards, asked_for, gpu):
        cards(4)
        base = bases.load(small_spec(**{"resources.gpu": gpu}))
        assert asked_for[0]["device_map"] == {"": torch.device("cpu")}
        assert base.notes == ()


@pytest.fixture
def dispatched():
    """``dispatched(model)``: with accelerate's hooks between its parts. This CPU counts as two devices, as it is named
    in two ways."""

    def spread(model):
        first, second = "cpu", torch.device("cpu")
        parts = {"model.embed_tokens": first, "model.rotary_emb": first, "model.norm": second, "lm_head": second}
        layers = len(model.model.layers)
        parts |= {f"model.layers.{i}": first if i < layers // 2 else second for i in range(layers)}
        return dispatch_model(model, parts, main_device="cpu")

    return spread


@pytest.mark.parametrize(
    ("variant", "checkpointing"), [("lora", True), ("dora", False), ("pissa", False), ("lora_ga", False), ("eva", True)]
)
def test_trials_on_a_dispatched_model_are_those_on_a_whole_one(tmp_path, base, dispatched, variant, checkpointing):
    def score(folder, model):
        spec = small_spec(**{"training.gradient_checkpointing": checkpointing}).model_copy(update={"model": model})
        with as_given(model):
            held = bases.load(spec)
            data = prepare_data(spec, held.tokenizer, tmp_path / "data")
            bench = Workbench.of(spec, folder, held, data)
            trainer = BuiltinTrainer(bench)
            job = Job(0, variant, Config(1e-3, 8, 2, 4.0), seed=0, start=0.0, stop=1.0, rung=2)
            trainer.set_aside()
            outcome = segment.run(bench, job)
            trainer.export(0, folder / "adapter")
        return outcome.value, bench.base.reading

    plain = AutoModelForCausalLM.from_pretrained(base.model.name_or_path, dtype=torch.float32)
    spread = dispatched(AutoModelForCausalLM.from_pretrained(base.model.name_or_path, dtype=torch.float32))
    before = {name: tensor.clone() for name, tensor in spread.state_dict().items()}
    assert devices.dispatched(spread)
    assert score(tmp_path / "spread", spread) == score(tmp_path / "whole", plain)
    assert all(torch.equal(tensor, before[name]) for name, tensor in spread.state_dict().items())
    with torch.no_grad():
        assert torch.equal(spread(torch.arange(5)[None]).logits, plain(torch.arange(5)[None]).logits)


def test_a_dispatched_model_generates(tmp_path, base, dispatched):
    spread = dispatched(AutoModelForCausalLM.from_pretrained(base.model.name_or_path, dtype=torch.float32))
    spec = small_spec(metric="exact_match").model_copy(update={"model": spread})
    with as_given(spread):
        held = bases.load(spec)
        Workbench.of(spec, tmp_path, held, prepare_data(spec, held.tokenizer, tmp_path / "data"))  # tries the metric


@pytest.mark.parametrize("offloaded", ["cpu", "disk"])
def test_a_model_with_offloaded_parts_is_refused_before_training(tmp_path, base, offloaded):
    model = AutoModelForCausalLM.from_pretrained(base.model.name_or_path, dtype=torch.float32)
    main = torch.device("cpu")  # which accelerate does not take for the CPU that it offloads to
    parts = {f"model.{part}": main for part in ("embed_tokens", "rotary_emb", "norm")} | {"lm_head": main}
    parts |= {f"model.layers.{i}": main if i else offloaded for i in range(len(model.model.layers))}
    model = dispatch_model(model, parts, main_device=main, offload_dir=str(tmp_path))
    with pytest.raises(bases.ModelError, match=r"holds no data here \(it is offloaded"):
        bases.load(small_spec().model_copy(update={"model": model}))

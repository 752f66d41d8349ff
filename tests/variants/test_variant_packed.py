"""What every registered variant does on a base in 4 or 8 bits. A new variant gets these tests by registering."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("bitsandbytes")

from autolora.adapters.errors import VariantError
from autolora.adapters.packed import bits_of
from autolora.adapters.spec import AdapterSpec
from autolora.bases import packed
from autolora.variants import detach, get, names
from studies.compatibility import packed as study
from tests.support.tiny_models import VOCABULARY, build_model

CASES = [(name, bits) for bits in study.BITS for name in names()]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return study.save(tmp_path_factory.mktemp("packed") / "base")


@pytest.fixture(scope="module")
def rows(saved, tmp_path_factory):
    """``rows(name, bits)``: what became of a variant, see the study; each is tried once."""
    found = {}

    def of(name, bits):
        if (name, bits) not in found:
            found[name, bits] = study.row(name, bits, saved, tmp_path_factory.mktemp(name))
        return found[name, bits]

    return of


@pytest.mark.parametrize(("name", "bits"), CASES)
class TestPackedBase:
    def test_it_is_refused_where_the_variant_says_so_and_nowhere_else(self, name, bits, rows):
        assert bool(rows(name, bits).refused) == (bits not in get(name).bits)

    def test_its_start_leaves_outputs_as_they_are(self, name, bits, rows):
        if get(name).moves_at_start or rows(name, bits).refused:
            pytest.skip("its paper wants it otherwise, or it is refused")
        assert rows(name, bits).started < 1e-5

    def test_it_trains_and_plain_peft_gives_the_same_logits(self, name, bits, rows):
        found = rows(name, bits)
        if found.refused:
            pytest.skip(found.refused)
        assert found.losses[-1] < 0.95 * found.losses[0]
        assert found.moved > 0.1, "training must move the logits, or the next line proves nothing"
        assert found.reloaded < 1e-5

    def test_the_base_is_itself_again(self, name, bits, rows):
        assert rows(name, bits).restored


def pack(folder, family, bits):
    build_model(family).save_pretrained(folder)
    return study.load(folder, bits)


FAMILIES = ("gpt2", "mixtral", "gemma3", "qwen3", "gpt_oss")
CLOSE = {4: 1e-4, 8: 1e-2}
"""In 8 bits a layer rounds its inputs, so that a difference in float32's last digit may become one of an input's."""
TOKENS = torch.randint(3, VOCABULARY, (2, 8), generator=torch.Generator().manual_seed(0))
INPUTS = {"input_ids": TOKENS, "labels": TOKENS, "attention_mask": torch.ones_like(TOKENS)}


@pytest.mark.parametrize("bits", study.BITS)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["lora", "pissa", "dora", "eva"])
def test_other_architectures_train_and_are_themselves_again(name, family, bits, tmp_path):
    model = pack(tmp_path, family, bits)
    assert packed.bits_held(model) == bits
    before, untouched = study.digest(model), study.logits(model, TOKENS)
    without_experts = AdapterSpec(target_parameters=())
    adapted = get(name).attach(model, rank=2, alpha=2.0, batches=[INPUTS], horizon=9, adapter=without_experts)
    assert study.difference(study.logits(adapted, TOKENS), untouched) < CLOSE[bits]
    losses = study.train(adapted, get(name).optimizer(adapted, 1e-2), TOKENS)
    assert losses[-1] < losses[0]
    back = detach(adapted)
    assert study.digest(back) == before
    assert torch.equal(study.logits(back, TOKENS), untouched)


def test_a_refusal_names_the_layer_and_what_to_do(saved):
    with pytest.raises(
        VariantError, match=r"cannot load LoKr on weights in 4 bits, as those of 'model.layers.0.*leave"
    ):
        get("lokr").attach(study.load(saved, 4), rank=2, alpha=2.0)


@pytest.mark.parametrize("name", ["pissa", "relora"])
def test_a_resumed_adapter_computes_the_same(name, saved):
    from autolora.adapters.state import adapter_state, load_adapter_state

    adapted = get(name).attach(study.load(saved, 4), rank=2, alpha=2.0, horizon=20)
    study.train(adapted, get(name).optimizer(adapted, 1e-2), TOKENS)
    other = get(name).attach(study.load(saved, 4), rank=2, alpha=2.0, horizon=20, seed=5)
    load_adapter_state(other, adapter_state(adapted))
    assert torch.equal(study.logits(other, TOKENS), study.logits(adapted, TOKENS))


def test_evaluating_changes_no_bit_of_a_base(saved):
    """Without our settling it, bitsandbytes rounds scales on CPUs that have bfloat16."""
    model = study.load(saved, 4)
    layer = next(module for module in model.modules() if bits_of(module))
    model.train()
    before, trained_as = study.digest(model), model(input_ids=TOKENS).logits
    evaluated_as = study.logits(model, TOKENS)
    assert study.digest(model) == before
    assert study.difference(evaluated_as, trained_as) < 1e-5
    assert layer.weight.quant_state.nested

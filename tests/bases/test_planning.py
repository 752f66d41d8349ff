"""The memory plan: its parts against independent counts, what it grows with, and what would make it fit."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig

from autolora import variants
from autolora.adapters.attachment import attachment
from autolora.adapters.memory import Device, Growth
from autolora.bases import capacity, tracing
from autolora.bases.base import Reading
from autolora.bases.footprint import Footprint
from autolora.bases.outline import outline
from autolora.bases.planning import Setting, Yields, plan_memory
from tests.support.tiny_models import CONFIGS, OTHERS, VOCABULARY, build_model

CPU = torch.device("cpu")
RANK, LENGTH = 4, 61
OFTEN = ("lora", "dora", "pissa")
"""Variants of different kinds, which are looked at whenever tests run."""


def each_of(names):
    """Parameters of a test, most of them only in whole test runs."""
    return [name if name in OFTEN else pytest.param(name, marks=pytest.mark.slow) for name in names]


def config(blocks: int = 2, vocabulary: int = VOCABULARY) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=blocks,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )


def plan(setting: Setting | None = None, variant: str = "lora", device=None, model=None, **options):
    footprint = Footprint(outline(model or config()), variants.get(variant))
    return plan_memory(footprint, setting or Setting(RANK, length=LENGTH), device, **options)


@pytest.fixture
def small_device(monkeypatch):
    """A function that gives the machine so many bytes that plans may fill."""

    def of(usable: int) -> torch.device:
        monkeypatch.setattr(capacity, "capacity", lambda device: Device("cpu", round(usable / 0.9) + 1))
        return CPU

    return of


def test_weights_adapter_and_optimizer_are_as_counted_by_hand():
    found = plan()
    layer = (32 + 32) * 2 + (32 + 16) * 2 + (32 + 48) * 3  # q, o; k, v; gate, up, down
    weights = 2 * VOCABULARY * 32 + 2 * (32 * 32 * 2 + 32 * 16 * 2 + 32 * 48 * 3 + 2 * 32) + 32
    assert found.trained == 2 * RANK * layer
    assert found.parameters == weights
    assert found.base_bytes == 4 * weights
    # AdamW's two moments, and a count of steps for each of the 28 factors.
    assert found.optimizer_bytes == 8 * found.trained + 28 * 4
    assert found.adapter_bytes == 16 * found.trained + 28 * 4
    assert found.total_bytes == found.base_bytes + found.adapter_bytes + found.activation_bytes
    assert (found.kept_bytes, found.formula, found.fits) == (0, "", None)


@pytest.mark.parametrize("name", each_of(name for name in variants.names() if name != "goat"))
def test_the_step_of_every_variant_is_counted(name):
    found = plan(variant=name)
    assert found.formula == ""
    assert 0 < found.checkpointed_bytes < found.total_bytes


def test_an_optimizer_with_a_larger_state_takes_more():
    assert plan(variant="loft").optimizer_bytes > 1.5 * plan(variant="lora").optimizer_bytes


@pytest.mark.parametrize("name", each_of(["lora", "vera", "loft"]))
def test_activations_grow_with_rows_tokens_and_rank(name):
    def total(**changes: int) -> int:
        return plan(Setting(**{"rank": RANK, "rows": 2, "length": LENGTH, **changes}), name).total_bytes

    assert total(rows=1) < total() < total(rows=3)
    assert total(length=31) < total()
    assert total(rank=2) < total()


def test_a_plan_tells_of_other_sizes_what_their_own_plans_do():
    large, small = (plan(Setting(RANK, rows, length)) for rows, length in ((3, 61), (2, 31)))
    for growth, own in ((large.activations, small.activations), (large.checkpointed, small.checkpointed)):
        assert own.at(2, 31) == pytest.approx(growth.at(2, 31), rel=0.1)


@pytest.mark.parametrize(
    "family", ["llama", *(pytest.param(name, marks=pytest.mark.slow) for name in ("gemma3", "gpt2"))]
)
def test_blocks_that_repeat_are_counted_by_the_first_ones(family, monkeypatch):
    model = {**CONFIGS, **OTHERS}[family]()
    model.num_hidden_layers = 5
    if getattr(model, "layer_types", None):
        model.layer_types = (model.layer_types * 5)[:5]
    by_first = plan(Setting(RANK, 2, LENGTH), model=model)
    monkeypatch.setattr(tracing._Blocks, "of", lambda adapted: None)
    by_all = plan(Setting(RANK, 2, LENGTH), model=model)
    assert by_first.activations.further == 3
    assert by_first.total_bytes == pytest.approx(by_all.total_bytes, rel=0.001)
    assert by_first.checkpointed_bytes == pytest.approx(by_all.checkpointed_bytes, rel=0.001)


def test_the_head_in_chunks_holds_less_than_all_logits():
    model = config(vocabulary=1 << 20)
    setting = Setting(RANK, rows=4, length=LENGTH)
    whole, apart = (plan(setting, model=model, reading=Reading(False, apart)) for apart in (False, True))
    logits = 4 * LENGTH * model.vocab_size * 4
    assert whole.activation_bytes > 2 * logits
    assert apart.activation_bytes < logits


def test_attention_that_keeps_its_scores_grows_with_the_square_of_the_tokens():
    footprint = Footprint(outline(config()), variants.get("lora"))
    flash = plan_memory(footprint, Setting(RANK, length=LENGTH))
    footprint.model.set_attn_implementation("eager")
    eager = plan_memory(footprint, Setting(RANK, length=LENGTH))
    scores = 2 * 4 * 4  # blocks, heads, bytes
    assert eager.activation_bytes > flash.activation_bytes + scores * LENGTH**2
    assert max(squared for _, _, squared in flash.activations.peaks) == 0


def test_kernels_of_a_gpu_are_counted_as_torchs_own():
    footprint = Footprint(outline(config()), variants.get("lora"))
    own = plan_memory(footprint, Setting(RANK, length=LENGTH))
    footprint.model.config._attn_implementation_internal = "flash_attention_2"
    assert plan_memory(footprint, Setting(RANK, length=LENGTH)) == own
    assert footprint.model.config._attn_implementation == "flash_attention_2"


def test_checkpointing_that_is_on_already_is_told_apart():
    footprint = Footprint(outline(config()), variants.get("lora"))
    usual = plan_memory(footprint, Setting(RANK, length=LENGTH))
    footprint.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    found = plan_memory(footprint, Setting(RANK, length=LENGTH))
    # PEFT asks then for gradients at the embedding, for which a little more is kept.
    assert found.total_bytes == pytest.approx(usual.total_bytes, rel=0.05)
    assert found.checkpointed_bytes == pytest.approx(usual.checkpointed_bytes, rel=0.05)


def test_random_numbers_are_left_as_they_are():
    before = torch.get_rng_state()
    plan(Setting(RANK, length=LENGTH, dropout=0.1))
    assert torch.equal(torch.get_rng_state(), before)


def test_dropout_keeps_its_masks():
    without, dropped = (plan(Setting(RANK, length=LENGTH, dropout=dropout)) for dropout in (0.0, 0.1))
    assert dropped.activation_bytes > without.activation_bytes


def test_a_half_precision_base_takes_half_and_its_activations_less():
    whole, half = (plan(Setting(RANK, length=LENGTH, dtype=dtype)) for dtype in (torch.float32, torch.bfloat16))
    assert whole.base_bytes == 2 * half.base_bytes
    assert half.activation_bytes < whole.activation_bytes
    assert (half.dtype, half.adapter_bytes) == ("bfloat16", whole.adapter_bytes)
    other = plan(Setting(RANK, length=LENGTH, dtype=torch.float16))
    assert (other.formula, other.total_bytes) == ("", half.total_bytes)


@pytest.mark.parametrize("name", each_of(name for name in variants.names() if variants.get(name).factored))
def test_what_is_subtracted_from_stays_on_the_cpu(name):
    batch = torch.arange(8).view(1, 8) % VOCABULARY
    batches = [{"input_ids": batch, "labels": batch, "attention_mask": torch.ones_like(batch)}]
    attached = variants.get(name).attach(build_model(), rank=RANK, alpha=RANK, batches=batches, horizon=1000)
    kept = sum(each.original.numel() * 4 for each in attachment(attached).subtracted.values())
    assert plan(variant=name, device=CPU, model=CONFIGS["llama"]()).kept_bytes == kept
    assert plan(variant=name, model=CONFIGS["llama"]()).kept_bytes == 0


def refuse(monkeypatch, dtypes) -> None:
    """Let no step be traced in these dtypes."""
    own = tracing.trace

    def refusing(adapted, variant, each):
        if each.dtype in dtypes:
            raise ValueError("needs values\nand more")
        return own(adapted, variant, each)

    monkeypatch.setattr(tracing, "trace", refusing)


def test_a_step_that_cannot_be_counted_is_estimated_and_that_is_said(monkeypatch):
    refuse(monkeypatch, [None])
    found = plan()
    assert found.formula == "ValueError: needs values"
    assert found.activations.at(1, 10) == 10 * 80 * 32 * 2
    assert found.optimizer_bytes == 8 * found.trained


def test_of_experts_nothing_is_estimated():
    found = plan(model=OTHERS["jetmoe"](), device=CPU)
    assert "DataDependentOutputException" in found.formula
    assert (found.activations, found.total_bytes, found.fits, found.remedies) == (None, None, None, ())
    assert found.resident_bytes > found.base_bytes > 0


@pytest.mark.parametrize(("refused", "formula"), [(None, True), (torch.bfloat16, False)])
def test_a_plan_and_its_remedies_are_counted_or_estimated_alike(refused, formula, small_device, monkeypatch):
    refuse(monkeypatch, [refused])
    setting = Setting(RANK, rows=4, length=LENGTH)
    found = plan(setting, device=small_device(1000))
    changes = [remedy.change for remedy in found.remedies]
    assert bool(found.formula) is formula
    assert ("a bfloat16 base" in changes) is formula
    if formula:
        by_formula = Growth(((0.0, 53.0 * 32 * 2, 0.0),)).at(4, LENGTH)
        [half] = [remedy.total_bytes for remedy in found.remedies if remedy.change == "a bfloat16 base"]
        assert half == found.base_bytes // 2 + found.adapter_bytes + by_formula


@pytest.mark.parametrize("family", ["mixtral", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_steps_with_experts_are_counted_in_every_dtype(family, dtype):
    if family == "jetmoe":
        pytest.skip("needs values")
    found = plan(Setting(RANK, length=LENGTH, dtype=dtype), model={**CONFIGS, **OTHERS}[family]())
    assert found.formula == ""
    assert found.activation_bytes > 0


def test_sums_of_experts_and_their_adapters_are_counted():
    """PEFT adds the adapter to the weights of all experts, whose sum is kept for the backward pass."""
    from transformers import MixtralConfig

    model = MixtralConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    experts = 4 * 8 * 3 * 32 * 256 * 4  # blocks, experts, matrices, their sides, bytes
    found = plan(model=model)
    assert experts < found.activation_bytes < 2 * experts
    assert experts / 4 < found.activations.at(1, 1) - found.checkpointed.at(1, 1)


SCANNED = {"vocab_size": VOCABULARY, "hidden_size": 32, "state_size": 4, "num_hidden_layers": 3}


def test_a_loop_over_tokens_is_traced_at_two_short_lengths(monkeypatch):
    from transformers import MambaConfig

    setting = Setting(RANK, rows=2, length=127)
    monkeypatch.setattr(tracing, "OPERATIONS", 1 << 30)
    whole = plan(setting, model=MambaConfig(**SCANNED))
    monkeypatch.setattr(tracing, "OPERATIONS", 100)
    traced = []
    own = tracing._traced

    def watched(adapted, variant, each, tokens, operations):
        traced.append((tokens, operations))
        return own(adapted, variant, each, tokens, operations)

    monkeypatch.setattr(tracing, "_traced", watched)
    by_short = plan(setting, model=MambaConfig(**SCANNED))
    assert {tokens for tokens, operations in traced if operations is None} == {31, 67}
    assert by_short.formula == ""
    assert by_short.activation_bytes == pytest.approx(whole.activation_bytes, rel=0.05)
    assert by_short.checkpointed_bytes == pytest.approx(whole.checkpointed_bytes, rel=0.05)
    # What each token adds is held for every row.
    twice, once = (by_short.activations.at(rows, 1024) for rows in (2, 1))
    assert twice == pytest.approx(2 * once, rel=0.05)


def test_blocks_are_there_again_after_a_step():
    footprint = Footprint(outline(config(blocks=5)), variants.get("lora"))
    adapted = footprint.adapted(RANK)
    names, layers = [name for name, _ in adapted.named_parameters()], attachment(adapted).layers
    tracing.trace(adapted, footprint.variant, tracing.Pass(1, LENGTH))
    assert [name for name, _ in adapted.named_parameters()] == names
    assert attachment(adapted).layers is layers


def test_transformers_says_nothing_of_kernels_that_nobody_runs(capfd):
    import logging

    from transformers import MambaConfig

    level = logging.getLogger("transformers").level
    plan(Setting(RANK, length=31), model=MambaConfig(**SCANNED))
    assert "falling back" not in capfd.readouterr().err
    assert logging.getLogger("transformers").level == level


def test_the_model_is_left_as_it_is():
    model = build_model()
    before = {name: (tensor.data_ptr(), tensor.clone()) for name, tensor in model.state_dict().items()}
    copy = tracing.without_values(model)
    assert all(parameter.is_meta for parameter in copy.parameters())
    assert copy.lm_head.weight is copy.model.embed_tokens.weight  # tied as they were
    for name, tensor in model.state_dict().items():
        address, values = before[name]
        assert tensor.data_ptr() == address
        assert torch.equal(tensor, values)


def test_a_plan_that_fits_says_so(small_device):
    needed = plan().total_bytes
    found = plan(device=small_device(needed))
    assert found.fits is True
    assert found.remedies == ()
    assert "it fits" in found.verdict()


def test_what_would_make_it_fit_has_its_number(small_device):
    setting = Setting(RANK, rows=4, length=LENGTH)
    found = plan(setting, device=small_device(plan(setting).total_bytes - 1000))
    assert found.fits is False
    by_change = {remedy.change: remedy for remedy in found.remedies}
    lean, half = Setting(RANK, 4, LENGTH, checkpointing=True), Setting(RANK, 4, LENGTH, dtype=torch.bfloat16)
    assert by_change["gradient checkpointing"].total_bytes == plan(lean).checkpointed_bytes
    assert by_change["a bfloat16 base"].total_bytes == plan(half).total_bytes
    alone = by_change["one example at a time"].total_bytes
    assert alone == pytest.approx(plan(Setting(RANK, 1, LENGTH)).total_bytes, rel=0.05)
    assert "What would make it fit: gradient checkpointing (" in found.verdict()


def test_changes_are_put_together_until_they_fit(small_device):
    setting = Setting(RANK, rows=4, length=LENGTH)
    least = plan(Setting(RANK, 1, LENGTH, dtype=torch.bfloat16, checkpointing=True)).checkpointed_bytes
    found = plan(setting, device=small_device(round(1.1 * least)))
    assert [remedy.fits for remedy in found.remedies][-1]
    assert not any(remedy.fits for remedy in found.remedies[:-1])
    together = "gradient checkpointing, one example at a time, a bfloat16 base"
    assert found.remedies[-1].change == together


def test_a_shorter_example_or_a_smaller_rank_comes_last(small_device):
    setting = Setting(16, length=256, dtype=torch.bfloat16, checkpointing=True)
    found = plan(setting, device=small_device(plan(setting).checkpointed_bytes - 1000))
    changes = [remedy.change for remedy in found.remedies if remedy.fits]
    assert changes == ["a 4-bit base", "max_length 128", "rank 8"]


def test_nothing_is_promised_where_nothing_helps(small_device):
    found = plan(device=small_device(1000))
    assert not any(remedy.fits for remedy in found.remedies)
    assert "does not fit" in found.verdict()


def test_a_trainer_that_yields_gets_smaller_passes_and_then_checkpointing(small_device):
    setting = Setting(RANK, rows=8, length=LENGTH)
    halved = plan(setting, device=small_device(plan(setting).total_bytes - 1000), yields=Yields(passes=True))
    assert (halved.rows, halved.fits, halved.checkpointing) == (4, True, False)
    least = plan(Setting(RANK, 1, LENGTH)).total_bytes - 5000
    yields = Yields(passes=True, checkpointing=True)
    assert plan(setting, device=small_device(least), yields=yields).checkpointing is True
    assert halved.yielded == "a batch of 8 cut into passes of 4"
    assert "a batch of 8 cut into passes of 4" in halved.verdict()


def test_what_does_not_fit_after_all_is_the_least_that_a_trainer_turns_to(small_device):
    setting = Setting(RANK, rows=8, length=LENGTH)
    device, one = small_device(1000), plan(Setting(RANK, 1, LENGTH))
    cut = plan(setting, device=device, yields=Yields(passes=True))
    assert (cut.rows, cut.batch, cut.checkpointing, cut.fits) == (1, 8, False, False)
    assert cut.planned_bytes == pytest.approx(one.total_bytes, rel=0.1)
    assert [remedy.change for remedy in cut.remedies] == [
        "gradient checkpointing",
        "a bfloat16 base",
        "a 4-bit base",
        "gradient checkpointing, a bfloat16 base",
        "gradient checkpointing, a bfloat16 base, a 4-bit base",
    ]
    both = plan(setting, device=device, yields=Yields(passes=True, checkpointing=True))
    assert (both.rows, both.checkpointing) == (1, True)
    assert both.yielded == "a batch of 8 cut into passes of 1 and gradient checkpointing"
    assert [remedy.change for remedy in both.remedies] == [
        "a bfloat16 base",
        "a 4-bit base",
        "a bfloat16 base, a 4-bit base",
    ]
    assert both.remedies[0].total_bytes < both.planned_bytes


def test_only_moments_that_may_be_the_largest_are_kept():
    growth = Growth.of([(0, 2, 0), (10, 1, 0), (5, 1, 0), (0, 0, 1), (0, 1, 0)])
    assert set(growth.peaks) == {(0, 2, 0), (10, 1, 0), (0, 0, 1)}
    assert [growth.at(1, length) for length in (1, 100)] == [11, 10000]


def test_the_memory_of_a_machine_is_no_more_than_its_limit(tmp_path, monkeypatch):
    import psutil

    monkeypatch.setattr(capacity, "OWN_GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(capacity, "CGROUPS", ((str(tmp_path / "v2"), "memory.max"),))
    assert capacity.capacity(CPU).bytes == psutil.virtual_memory().total
    inner = tmp_path / "v2" / "box" / "job"
    inner.mkdir(parents=True)
    (tmp_path / "cgroup").write_text("0::/box/job\n")
    (inner / "memory.max").write_text("max\n")
    (inner.parent / "memory.max").write_text("1000000\n")  # of the group around it
    assert capacity.capacity(CPU).bytes == 1_000_000


def test_transformers_is_as_it_was_after_a_step_that_cannot_be_counted():
    from transformers import masking_utils

    own = masking_utils.find_packed_sequence_indices
    plan(model=OTHERS["jetmoe"]())
    assert masking_utils.find_packed_sequence_indices is own


def test_a_base_in_four_bits_takes_what_it_does():
    found, plain = plan(Setting(RANK, length=LENGTH, bits=4)), plan()
    linear = 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48)
    unpacked = 4 * 32 * 48  # the largest layer, for a product
    assert found.bits == 4
    assert found.base_bytes == pytest.approx(plain.base_bytes - linear * (4 - 0.5 - 1 / 64) + unpacked, rel=1e-3)
    assert found.activations == plain.activations
    assert found.held == "4 bits and float32"


def test_a_start_that_is_subtracted_lies_beside_packed_weights():
    found = plan(Setting(RANK, length=LENGTH, bits=8), "pissa", CPU)
    assert found.kept_bytes == 4 * found.trained
    assert plan(Setting(RANK, length=LENGTH, bits=8)).kept_bytes == 0


@pytest.mark.parametrize(("variant", "offered"), [("lora", True), ("lokr", False)])
def test_four_bits_make_a_large_base_fit_where_the_variant_trains_on_them(small_device, variant, offered):
    wide = config(blocks=4)
    wide.hidden_size, wide.intermediate_size, wide.head_dim = 512, 1024, 128
    whole = plan(variant=variant, model=wide)
    found = plan(variant=variant, model=wide, device=small_device(round(0.7 * whole.total_bytes)))
    remedies = {remedy.change: remedy for remedy in found.remedies}
    assert ("a 4-bit base" in remedies) == offered
    if offered:
        assert remedies["a 4-bit base"].fits
        assert remedies["a 4-bit base"].total_bytes < remedies["a bfloat16 base"].total_bytes

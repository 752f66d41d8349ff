"""Variants that follow the run's length: AdaLoRA's budget, against PEFT's own, and ReLoRA's phases."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from peft import AdaLoraConfig, get_peft_model
from peft.tuners.adalora.layer import RankAllocator, SVDLinear
from safetensors.torch import load_file
from transformers import get_scheduler

from autolora.adapters.attachment import attachment
from autolora.adapters.draws import draw_kaiming, random_stream
from autolora.adapters.kernels.adalora import AdaloraAdamW, Budget, Singular, Triplets
from autolora.adapters.start import DEFAULT_NAME
from autolora.adapters.state import adapter_state, load_adapter_state
from autolora.adapters.subtraction import weight_matrix
from autolora.variants import VariantError, detach, get

RANK, HORIZON = 4, 20


class Run:
    """One training, with the penalty and a learning-rate schedule, as the trainer has it."""

    def __init__(self, name, base, tokens, seed=0, rate=1e-2, horizon=HORIZON, dtype=None, **options):
        self.variant, self.tokens = get(name).configured(**options), tokens
        self.model = self.variant.attach(base, RANK, 2.0 * RANK, horizon=horizon, seed=seed)
        self.model.train()
        self.optimizer = self.variant.optimizer(self.model, rate)
        self.schedule = get_scheduler("cosine", self.optimizer, num_warmup_steps=2, num_training_steps=horizon)
        self.layers = attachment(self.model).layers

    def step(self, count=1):
        losses = []
        for _ in range(count):
            loss = self.model(input_ids=self.tokens, labels=self.tokens).loss
            penalty = self.variant.penalty(self.model)
            (loss if penalty is None else loss + penalty).backward()
            self.optimizer.step()
            self.schedule.step()
            self.optimizer.zero_grad(set_to_none=True)
            losses.append(loss.item())
        return losses

    def save(self, file):
        state = adapter_state(self.model), self.optimizer.state_dict(), self.schedule.state_dict()
        torch.save(state, file)

    def load(self, file):
        adapter, optimizer, schedule = torch.load(file, weights_only=True)
        load_adapter_state(self.model, adapter)
        self.optimizer.load_state_dict(optimizer)
        self.schedule.load_state_dict(schedule)

    def kept(self):
        """Triplets that count, over all layers."""
        return sum(int(layer.given("singular_values").count_nonzero()) for layer in self.layers.values())


def assert_cut_run_goes_on_as_if_uncut(name, build, tokens, cut, tmp_path):
    uncut = Run(name, build(), tokens)
    uncut.step(cut)
    uncut.save(tmp_path / "cut.pt")
    resumed = Run(name, build(), tokens, seed=9, rate=0.5)
    resumed.load(tmp_path / "cut.pt")
    assert resumed.step(HORIZON - cut) == uncut.step(HORIZON - cut)
    expected = adapter_state(uncut.model)
    assert all(torch.equal(tensor, expected[key]) for key, tensor in adapter_state(resumed.model).items())
    return uncut, resumed


def random_triplets(shapes, seed=0):
    stream = torch.Generator().manual_seed(seed)
    drawn = []
    for m, n, rank in shapes:
        parts = (torch.randn(shape, generator=stream) for shape in ((rank, n), (m, rank), (rank,)))
        drawn.append(Triplets(*map(torch.nn.Parameter, parts)))
    return drawn


class TestBudget:
    @pytest.mark.parametrize(("total", "tinit", "tfinal", "interval"), [(20, 2, 6, 1), (1000, 100, 300, 10)])
    def test_it_is_peft_s(self, total, tinit, tfinal, interval):
        """But for the last step of the fall, which here is the first at the final budget."""
        theirs = SimpleNamespace(
            peft_config=SimpleNamespace(tinit=tinit, tfinal=tfinal, total_step=total, deltaT=interval),
            init_bgt=84,
            target_bgt=56,
        )
        ours = Budget(84, 56, tinit, total - tfinal, interval)
        for step in range(1, total + 1):
            budget, due = RankAllocator.budget_schedule(theirs, step)
            assert ours.at(step) == (budget if due or step == total - tfinal else None)

    @pytest.mark.parametrize("horizon", [1, 2, 3, 7, 20, 1000])
    def test_every_run_prunes_to_its_last(self, build, tokens, horizon):
        optimizer = Run("adalora", build(), tokens, horizon=horizon).optimizer
        layers = len(optimizer.triplets)
        budgets = [budget for step in range(1, horizon + 1) if (budget := optimizer.budget.at(step)) is not None]
        assert optimizer.budget.first == 6 * layers
        assert budgets == sorted(budgets, reverse=True)
        assert budgets[-1] == 4 * layers


class TestImportance:
    def test_it_is_peft_s_and_so_is_the_pruning(self, difference):
        """PEFT's allocator on the same weights and gradients, before the step; it calls A, B and e differently."""
        shapes = [(5, 7, 4), (6, 3, 3)]
        ours = random_triplets(shapes)
        budget = Budget(first=7, last=3, begin=0, end=10, interval=5)
        optimizer = AdaloraAdamW(ours, budget, [{"params": [p for t in ours for p in t]}], lr=0.05)

        theirs = torch.nn.Module()
        for i, (a, b, e) in enumerate(ours):
            layer = torch.nn.Module()
            for key, value in (("lora_A", a), ("lora_B", b), ("lora_E", e[:, None])):
                layer.register_module(key, torch.nn.ParameterDict({DEFAULT_NAME: value.detach().clone()}))
            theirs.register_module(f"layer{i}", layer)
        config = AdaLoraConfig(
            target_r=1, init_r=4, total_step=20, tinit=0, tfinal=10, deltaT=5, beta1=0.85, beta2=0.85
        )
        allocator = RankAllocator(theirs, config, DEFAULT_NAME)

        stream = torch.Generator().manual_seed(3)
        for step in range(1, 6):
            for i, (a, b, e) in enumerate(ours):
                layer = theirs.get_submodule(f"layer{i}")
                for p, key in ((a, "lora_A"), (b, "lora_B"), (e, "lora_E")):
                    other = layer.get_submodule(key)[DEFAULT_NAME]
                    p.grad = torch.randn(p.shape, generator=stream)
                    other.data.copy_(p.detach().view_as(other))
                    other.grad = p.grad.view_as(other)
            allocator.update_ipt(theirs)
            optimizer.step()
            for i, triplets in enumerate(ours):
                e, a, b = (allocator._element_score(f"layer{i}.lora_{key}.{DEFAULT_NAME}") for key in "EAB")
                expected = allocator._combine_ipt(e, torch.stack([a.mean(1), b.mean(0)], dim=1))
                assert difference(optimizer.importance(triplets), expected) < 1e-5
            if step == 5:  # at half of the fall: 3 + 4 / 8
                pattern = allocator.mask_to_budget(theirs, 3)
        assert [bool(value) for t in ours for value in t.e] == [kept for layer in pattern.values() for kept in layer]
        assert sum(map(sum, pattern.values())) == 3

    def test_layers_whose_gradients_come_too_late_stay_out(self):
        """As those of experts that no token is routed to."""
        triplets = random_triplets([(5, 7, 4), (6, 3, 3), (2, 2, 2)])
        for t in (triplets[0], triplets[2]):
            t.e.data.zero_()
        groups = [{"params": [p for t in triplets for p in t]}]
        optimizer = AdaloraAdamW(triplets, Budget(9, 5, 0, 2, 1), groups, lr=0.05)
        for step in range(4):
            for p in triplets[1]:
                p.grad = torch.ones_like(p)
            optimizer.step()
            kept = [t.e.count_nonzero().item() for t in triplets]
            assert kept == [0, 3, 0], step
        for t in triplets:
            for p in t:
                p.grad = torch.ones_like(p)
        optimizer.step()
        assert [t.e.count_nonzero().item() for t in triplets] == [0, 3, 0]


class TestAdalora:
    def test_the_forward_pass_is_peft_s(self, build, difference):
        """Whose scale is alpha over the rank of the moment."""
        run = Run("adalora", build(), None)
        layer = next(iter(run.layers.values()))
        stream = torch.Generator().manual_seed(1)
        layer.given("singular_values").data.normal_(generator=stream)
        base = layer.base_layer
        config = AdaLoraConfig(target_r=4, init_r=6, total_step=20)
        theirs = SVDLinear(base, DEFAULT_NAME, config=config, r=6, lora_alpha=12)
        theirs.lora_A[DEFAULT_NAME].data.copy_(layer.a)
        theirs.lora_B[DEFAULT_NAME].data.copy_(layer.b)
        theirs.lora_E[DEFAULT_NAME].data.copy_(layer.given("singular_values")[:, None])
        theirs.ranknum[DEFAULT_NAME].data.fill_(6)
        x = torch.randn(2, 3, base.in_features, generator=stream)
        assert isinstance(layer.branch, Singular)
        assert layer.scaling == 2
        assert difference(layer.module(x) - base(x), theirs(x) - base(x)) < 1e-4

    def test_it_starts_as_the_base_with_triplets_of_their_own_scale(self, build):
        run = Run("adalora", build(), None)
        for layer in run.layers.values():
            assert not layer.given("singular_values").any()
            assert layer.a.detach().std() == pytest.approx(0.02, rel=0.2)
            assert layer.b.detach().std() == pytest.approx(0.02, rel=0.2)

    def test_a_layer_never_has_more_triplets_than_it_can_use_and_s_is_one(self, build, tokens):
        base = build()
        widest = max(min(layer.weight.shape) for layer in base.modules() if isinstance(layer, torch.nn.Linear))
        run = Run("adalora", base, tokens, initial=float(widest))
        ranks = {layer.rank for layer in run.layers.values()}
        assert ranks == {min(layer.base_layer.weight.shape) for layer in run.layers.values()}
        assert {layer.scaling for layer in run.layers.values()} == {2.0}
        run.step(HORIZON)
        assert run.kept() == RANK * len(run.layers)

    def test_the_loss_falls_to_the_budget_and_what_was_pruned_stays_so(self, build, tokens):
        run = Run("adalora", build(), tokens, rate=3e-2)
        layers = len(run.layers)
        first = run.step()[0]
        run.step(run.optimizer.budget.end - 1)
        assert run.kept() == RANK * layers
        pruned = [layer.given("singular_values") == 0 for layer in run.layers.values()]
        losses = run.step(HORIZON - run.optimizer.budget.end)
        assert losses[-1] < first - 0.2
        assert run.kept() == RANK * layers
        for before, layer in zip(pruned, run.layers.values(), strict=True):
            assert torch.equal(layer.given("singular_values") == 0, before)
        ranks = {int(layer.given("singular_values").count_nonzero()) for layer in run.layers.values()}
        assert len(ranks) > 1, "layers share the budget out as they need it"
        state = run.optimizer.state[next(iter(run.layers.values())).a]
        assert state.keys() == {"step", "exp_avg", "exp_avg_sq"}

    @pytest.mark.parametrize("cut", [1, 5, 13, 14, 17])
    def test_a_cut_run_follows_the_same_schedule_bit_for_bit(self, build, tokens, tmp_path, cut):
        uncut, resumed = assert_cut_run_goes_on_as_if_uncut("adalora", build, tokens, cut, tmp_path)
        assert uncut.kept() == resumed.kept() == RANK * len(uncut.layers)

    def test_it_leaves_with_the_triplets_that_count(self, build, tokens, tmp_path, logits, difference):
        run = Run("adalora", build(), tokens)
        run.step(HORIZON)
        none = next(iter(run.layers))
        run.layers[none].given("singular_values").data.zero_()
        run.variant.export(run.model, tmp_path)
        exported = load_file(tmp_path / "adapter_model.safetensors")
        widest = max(int(layer.given("singular_values").count_nonzero()) for layer in run.layers.values())
        for name, layer in run.layers.items():
            a, b = (exported[f"base_model.model.{name}.lora_{side}.weight"] for side in "AB")
            assert len(a) == widest
            full = layer.b * layer.given("singular_values") @ layer.a
            torch.testing.assert_close(b @ a, full.detach())
            assert torch.count_nonzero(b.abs().sum(0)) == layer.given("singular_values").count_nonzero()

    def test_the_penalty_is_peft_s(self, build, tokens):
        """Which adds it to the model's loss."""
        config = AdaLoraConfig(
            init_r=6, total_step=20, orth_reg_weight=0.3, target_modules="all-linear", task_type="CAUSAL_LM"
        )
        theirs = get_peft_model(build(), config)
        run = Run("adalora", build(), tokens, orthogonality=0.3)
        for name, layer in run.layers.items():
            other = theirs.get_base_model().get_submodule(name)
            other.lora_A[DEFAULT_NAME].data.copy_(layer.a)
            other.lora_B[DEFAULT_NAME].data.copy_(layer.b)
            other.lora_E[DEFAULT_NAME].data.zero_()
        plain = run.model(input_ids=tokens, labels=tokens).loss.item()
        penalty = run.variant.penalty(run.model)
        assert penalty.item() == pytest.approx(theirs(input_ids=tokens, labels=tokens).loss.item() - plain, rel=1e-5)
        penalty.backward()
        assert all(layer.a.grad.any() for layer in run.layers.values())
        assert get("adalora").configured(orthogonality=0.0).penalty(run.model) is None

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"initial": 0.5}, r"initial 0\.5: set space\.options\.adalora\.initial"),
            ({"tinit": 0.6, "tfinal": 0.4}, r"tinit 0\.6 and tfinal 0\.4: .*space\.options\.adalora\.tfinal"),
            ({"tinit": -0.1}, r"tinit -0\.1"),
            ({"orthogonality": math.nan}, "orthogonality = nan: it takes a finite float"),
        ],
    )
    def test_settings_out_of_range_are_refused(self, build, options, message):
        with pytest.raises(VariantError, match=message):
            get("adalora").configured(**options).attach(build(), RANK, RANK, horizon=HORIZON)


def delta(layer):
    """s B A of the moment."""
    low_rank = layer.b @ layer.a
    return (layer.scaling * low_rank).detach()


class TestRelora:
    ENDS = (6, 13)

    @pytest.mark.parametrize("family", ["llama", "gpt2"])
    def test_it_is_the_sum_of_its_phases(self, build, tokens, tmp_path, logits, difference, fingerprint, family):
        """What is exported, and what it computes with, are sum_i s B_i A_i, as each stood before its restart."""
        base = build(family)
        before = fingerprint(base)
        run = Run("relora", base, tokens)
        sums = dict.fromkeys(run.layers, 0.0)
        ended = []

        def note(phase, seed, restart=run.optimizer.restart):
            ended.append((run.optimizer.param_groups[0]["taken"], phase))
            for name, layer in run.layers.items():
                sums[name] = sums[name] + delta(layer)
            restart(phase, seed)
            assert not any(delta(layer).any() for layer in run.layers.values())

        run.optimizer.restart = note
        run.step(HORIZON)
        assert tuple(ended) == ((6, 1), (13, 2))
        run.variant.export(run.model, tmp_path)
        exported = load_file(tmp_path / "adapter_model.safetensors")
        merged = build(family)
        for name, layer in run.layers.items():
            total = sums[name] + delta(layer)
            module = merged.get_submodule(name)
            module.weight.data += total.T if layer.module.fan_in_fan_out else total
            a, b = (exported[f"base_model.model.{name}.lora_{side}.weight"] for side in "AB")
            assert a.shape[0] == b.shape[1] == 3 * RANK
            assert difference(layer.scaling * b @ a, total) < 1e-5
            assert torch.linalg.matrix_rank(total.double(), rtol=1e-6) > RANK
        assert difference(logits(run.model), logits(merged)) < 1e-4
        assert fingerprint(detach(run.model)) == before

    def test_a_phase_too_small_for_a_bfloat16_weight_stays(self, build, tokens, tmp_path, fingerprint):
        """Of changes by 1e-4 of a weight a merge in bfloat16 would round nearly all away."""
        base = build().to(torch.bfloat16)
        before = fingerprint(base)
        run = Run("relora", base, tokens)
        run.step(5)
        small, name = {}, "model.layers.0.mlp.up_proj"
        for key, layer in run.layers.items():
            size = weight_matrix(layer.base_layer).norm() / (layer.b @ layer.a).norm() / layer.scaling
            layer.b.data *= 1e-4 * size
            small[key] = delta(layer).clone()
        run.optimizer.restart(1, 0)
        layer = run.layers[name]
        x = torch.eye(layer.in_features)
        computed = layer.branch.update(layer, x).T * layer.scaling
        torch.testing.assert_close(computed, small[name], rtol=1e-4, atol=1e-4 * small[name].abs().max().item())
        rounded = (weight_matrix(layer.base_layer) + small[name]).bfloat16().float() - weight_matrix(layer.base_layer)
        assert (rounded - small[name]).norm() > 0.5 * small[name].norm()
        run.variant.export(run.model, tmp_path)
        exported = load_file(tmp_path / "adapter_model.safetensors")
        for key, layer in run.layers.items():
            a, b = (exported[f"base_model.model.{key}.lora_{side}.weight"] for side in "AB")
            bound = 1e-5 * small[key].abs().max().item()
            torch.testing.assert_close(layer.scaling * b @ a, small[key], rtol=1e-5, atol=bound)
        assert fingerprint(detach(run.model)) == before

    def test_a_restart_changes_no_output_and_the_layers_stay_as_wide(self, build, tokens, logits, difference):
        run = Run("relora", build(), tokens)
        run.step(5)
        before = {}

        def keep(phase, seed, restart=run.optimizer.restart):
            before["logits"] = logits(run.model)
            restart(phase, seed)

        run.optimizer.restart = keep
        run.step()
        assert difference(logits(run.model), before["logits"]) < 1e-5
        assert {len(layer.a) for layer in run.layers.values()} == {RANK}

    def test_moments_are_zero_after_a_restart_and_the_rate_climbs(self, build, tokens):
        """Of 20 steps a phase two warm up, at 1/3 and 2/3 of the schedule's rate. Adam's first step is its rate."""
        run = Run("relora", build(), tokens, horizon=60)
        run.step(20)
        assert all(not tensor.any() for state in run.optimizer.state.values() for tensor in state.values())
        layers = list(run.layers.values())
        for share in (1 / 3, 2 / 3, 1.0, 1.0):
            rate = run.schedule.get_last_lr()[0]
            first = not run.optimizer.state[layers[0].b]["exp_avg"].any()
            before = [layer.b.detach().clone() for layer in layers]
            run.step()
            assert run.optimizer.param_groups[0]["lr"] == run.schedule.get_last_lr()[0]
            moved = [(layer.b - old).abs().median().item() for layer, old in zip(layers, before, strict=True)]
            if first:
                assert moved == pytest.approx([rate * share] * len(moved), rel=1e-2)
            assert max(moved) < 1.2 * rate * share

    def test_a_is_drawn_from_the_seed_and_the_phase(self, build, tokens):
        run = Run("relora", build(), tokens, seed=5)
        run.step(6)
        stream = random_stream(5, "phase 1")
        for layer in run.layers.values():
            expected = torch.empty_like(layer.a)
            draw_kaiming(expected, stream)
            assert torch.equal(layer.a, expected)

    @pytest.mark.parametrize("cut", [5, 6, 7, 13])
    def test_a_cut_run_restarts_as_the_uncut_does(self, build, tokens, tmp_path, cut):
        """Before a restart, at it, and in the warm-up after it; the resumed run is given another seed."""
        assert_cut_run_goes_on_as_if_uncut("relora", build, tokens, cut, tmp_path)

    def test_one_phase_is_plain_lora(self, build, train):
        def losses(variant):
            model = variant.attach(build(), RANK, 2.0 * RANK, horizon=8, seed=3)
            return train(model, variant.optimizer(model, 5e-3), 8)

        assert losses(get("relora").configured(phases=1)) == losses(get("lora"))

    @pytest.mark.parametrize("horizon", [1, 2, 3])
    def test_a_run_shorter_than_its_phases_trains(self, build, tokens, tmp_path, horizon):
        run = Run("relora", build(), tokens, horizon=horizon, phases=5)
        assert all(math.isfinite(loss) for loss in run.step(horizon))
        run.variant.export(run.model, tmp_path)
        assert len(next(iter(load_file(tmp_path / "adapter_model.safetensors").values()))) == 5 * RANK

    def test_a_warmup_that_is_no_share_is_refused(self, build):
        with pytest.raises(VariantError, match=r"warmup 1\.5, .*space\.options\.relora\.warmup"):
            get("relora").configured(warmup=1.5).attach(build(), RANK, RANK, horizon=HORIZON)


@pytest.mark.parametrize("name", ["adalora", "relora"])
def test_the_run_s_length_is_asked_for(name, build):
    with pytest.raises(VariantError, match="pass horizon"):
        get(name).attach(build(), RANK, RANK)

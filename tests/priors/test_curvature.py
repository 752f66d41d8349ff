"""Curvature at initialization, against full Hessians and another library."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from autolora import priors, variants
from autolora.adapters.attachment import attachment
from autolora.adapters.statistics import LayerStatistics, layer_gradients, layer_statistics
from autolora.adapters.targets import linear_layers
from autolora.losses import token_losses
from autolora.priors import kfac
from autolora.priors.hessian import hessian_product, twice_differentiable
from autolora.priors.kfac import KfacBlock, Start
from autolora.priors.lanczos import LanczosError, largest_eigenvalue
from autolora.priors.sharpness import CurvatureError, matrix_type, spread_blocks
from tests.support.tiny_models import CONFIGS, VOCABULARY, build_model

BLOCK = "model.layers.1.self_attn.q_proj"
BLOCKS = [BLOCK, "model.layers.0.mlp.down_proj"]


@pytest.fixture(scope="module")
def batches():
    """Two batches of unequal numbers of targets, prompts masked, one row padded."""
    ids = torch.randint(3, VOCABULARY, (4, 12), generator=torch.Generator().manual_seed(3))
    labels, mask = ids.clone(), torch.ones_like(ids)
    labels[:, :4] = -100
    labels[0, 7:], mask[0, 9:] = -100, 0
    rows = {"input_ids": ids, "labels": labels, "attention_mask": mask}
    return [{key: part[rows_] for key, part in rows.items()} for rows_ in (slice(0, 1), slice(1, 4))]


def symmetric(size, seed=0, paired=False):
    generator = torch.Generator().manual_seed(seed)
    basis, _ = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))
    values = torch.linspace(0.1, 3, size, dtype=torch.float64)
    if paired:
        values = torch.cat([values[: size // 2], -values[: size - size // 2]])
    return basis @ torch.diag(values) @ basis.T


@pytest.mark.parametrize("paired", [False, True], ids=["positive", "symmetric about 0"])
@pytest.mark.parametrize("size", [1, 2, 7, 200])
def test_lanczos_finds_the_largest_eigenvalue(size, paired):
    matrix = symmetric(size, paired=paired)
    start = torch.randn(size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = largest_eigenvalue(lambda v: matrix @ v, start, tolerance=1e-4, products=200)
    assert found.value == pytest.approx(torch.linalg.eigvalsh(matrix)[-1].item(), rel=1e-6)
    assert (matrix @ found.vector - found.value * found.vector).norm() <= 1.1e-4 * abs(found.value) + 1e-9


def test_lanczos_stops_at_the_tolerance_and_at_the_number_of_products():
    matrix = symmetric(200)
    start = torch.ones(200, dtype=torch.float64)
    loose = largest_eigenvalue(lambda v: matrix @ v, start, tolerance=0.2)
    tight = largest_eigenvalue(lambda v: matrix @ v, start, tolerance=1e-3)
    assert loose.products < tight.products
    assert tight.residual <= 1e-3 * tight.value
    assert largest_eigenvalue(lambda v: matrix @ v, start, tolerance=0.0, products=5).products == 5


def test_lanczos_says_when_the_operator_is_not_finite():
    with pytest.raises(LanczosError, match="product 1"):
        largest_eigenvalue(lambda v: v * float("nan"), torch.ones(3))


def attach(name, model, batches, **settings):
    return variants.get(name).attach(model, batches=batches, horizon=10, **{"rank": 2, "alpha": 2.0, **settings})


def pair(adapted, block):
    layer = attachment(adapted).layers[block]
    return layer.a, layer.b


def full_hessian(adapted, parameters, batches):
    """By forward-mode over reverse-mode on the concatenated, unpadded rows: another path than double backward."""
    names = {id(p): name for name, p in adapted.named_parameters()}
    keys = [names[id(p)] for p in parameters]
    shapes = [p.shape for p in parameters]

    def loss(flat):
        parts = flat.split([shape.numel() for shape in shapes])
        values = {key: part.view(shape) for key, part, shape in zip(keys, parts, shapes, strict=True)}
        total, count = 0.0, 0
        for batch in batches:
            for row in range(len(batch["input_ids"])):
                seen = int(batch["attention_mask"][row].sum())
                ids, labels = batch["input_ids"][row : row + 1, :seen], batch["labels"][row, 1:seen]
                logits = torch.func.functional_call(adapted, values, kwargs={"input_ids": ids}).logits[0, :-1]
                total = total + torch.nn.functional.cross_entropy(logits[labels != -100], labels[labels != -100]) * int(
                    (labels != -100).sum()
                )
                count += int((labels != -100).sum())
        return total / count

    flat = torch.cat([p.detach().flatten() for p in parameters])
    return torch.autograd.functional.hessian(loss, flat)


@pytest.mark.parametrize("name", ["lora", "dora", "pissa"])
@pytest.mark.parametrize("block", BLOCKS)
def test_exact_curvature_is_the_full_hessian_s_largest_eigenvalue(name, block, batches):
    found = priors.curvature(build_model(), batches, [name], rank=2, alpha=2, method="lanczos", blocks=[block])
    adapted = attach(name, build_model(), batches)
    with twice_differentiable(adapted):
        expected = torch.linalg.eigvalsh(full_hessian(adapted, pair(adapted, block), batches))[-1].item()
    assert found[name].per_block[block] == pytest.approx(expected, rel=1e-2)


class Logits(torch.nn.Module):
    """Of every position but the last, one after the other."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, inputs):
        out = self.model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False)
        return out.logits[:, :-1].flatten(0, 1)


@pytest.mark.parametrize("name", ["lora", "pissa"])
def test_hessian_products_are_curvlinops(name, batches):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from curvlinops import HessianLinearOperator

    # Its products go forward over reverse, which torch's SiLU does not support: hence GPT-2.
    adapted = attach(name, build_model("gpt2"), batches)
    parameters = list(pair(adapted, "transformer.h.1.mlp.c_fc"))
    with twice_differentiable(adapted):
        product = hessian_product(adapted, batches, parameters)
        size = sum(p.numel() for p in parameters)
        ours = torch.stack([product(column) for column in torch.eye(size)[:20]])
        whole = {key: torch.cat([batch[key] for batch in batches]) for key in batches[0]}
        labels = whole["labels"][:, 1:].flatten()

        theirs = HessianLinearOperator(
            Logits(adapted),
            torch.nn.CrossEntropyLoss(reduction="mean", ignore_index=-100),
            parameters,
            [(whole, labels)],
            batch_size_fn=lambda inputs: len(inputs["input_ids"]),
            num_data=len(whole["input_ids"]),
            check_deterministic=False,
        )
        expected = theirs @ torch.eye(size)[:, :20]
    assert np.allclose(ours.T.numpy(), expected.numpy(), rtol=1e-2, atol=1e-3 * float(expected.abs().max()))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_every_family_has_second_derivatives_and_keeps_its_attention(attention, batches, family):
    model = build_model(family)
    model.set_attn_implementation(attention)
    model.train()
    model.gradient_checkpointing_enable()
    first = next(iter(linear_layers(model)))
    found = priors.curvature(model, batches, ["lora"], rank=2, alpha=2, method="lanczos", blocks=[first])
    assert found["lora"].per_block[first] > 0
    assert model.config._attn_implementation == attention
    assert model.training
    assert model.is_gradient_checkpointing


@pytest.fixture(params=CONFIGS)
def family(request):
    return request.param


def test_a_base_in_bfloat16_is_measured_in_float32_and_left_as_it_was(batches):
    model = build_model().to(torch.bfloat16)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    narrow = priors.curvature(model, batches, ["lora"], rank=2, alpha=2, method="lanczos", blocks=[BLOCK])
    after = model.state_dict()
    assert all(after[key].dtype == value.dtype and torch.equal(after[key], value) for key, value in before.items())
    wide = priors.curvature(model.float(), batches, ["lora"], rank=2, alpha=2, method="lanczos", blocks=[BLOCK])
    assert narrow["lora"].median == pytest.approx(wide["lora"].median, rel=1e-4)


class TestStatistics:
    def test_gradient_is_that_of_the_token_weighted_loss(self, batches, family):
        model = build_model(family)
        layers = {name: model.get_submodule(name) for name in linear_layers(model)}
        found = layer_statistics(model, layers, batches)
        alone = layer_gradients(model, layers, batches)
        model.requires_grad_(True)
        losses = torch.cat([token_losses(model, batch)[0] for batch in batches])
        losses.mean().backward()
        for name, kind in linear_layers(model).items():
            gradient = layers[name].weight.grad
            expected = gradient.T if kind.transposed else gradient
            for g in (found[name].gradient, alone[name]):
                assert torch.allclose(g, expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))

    def test_the_trace_of_the_product_is_that_of_the_fisher_matrix(self, batches):
        """tr F = (1/N) sum_t |x_t|^2 |N g_t|^2, with the same labels drawn here by hand."""
        model = build_model()
        layers = {BLOCK: model.get_submodule(BLOCK)}
        found = layer_statistics(model, layers, batches)[BLOCK]
        inputs, gradients = [], []
        hook = layers[BLOCK].register_forward_hook(lambda module, args, output: self._keep(args, output, inputs))
        targets = sum(int((batch["labels"][:, 1:] != -100).sum()) for batch in batches)
        generator = torch.Generator().manual_seed(0)
        for batch in batches:
            model.get_input_embeddings().weight.requires_grad_(True)
            out = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
            logits = out[batch["labels"][:, 1:] != -100]
            drawn = torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]
            loss = torch.nn.functional.cross_entropy(logits, drawn, reduction="sum")
            x, y = inputs.pop()
            gradients.append((x, torch.autograd.grad(loss, y)[0], batch["attention_mask"].bool()))
        hook.remove()
        trace = (
            sum(float(((x[kept] ** 2).sum(-1) * (g[kept] ** 2).sum(-1)).sum()) for x, g, kept in gradients) / targets
        )
        product = float(torch.trace(found.inputs) * torch.trace(found.outputs))
        assert product == pytest.approx(trace, rel=1e-3)

    @staticmethod
    def _keep(args, output, into):
        into.append((args[0].detach(), output))

    def test_a_layer_used_twice_adds_up_its_uses(self, batches):
        model = build_model()
        model.model.layers[1] = model.model.layers[0]
        layers = {BLOCK: model.get_submodule(BLOCK)}
        found = layer_statistics(model, layers, batches)[BLOCK].gradient
        layers[BLOCK].weight.requires_grad_(True)
        torch.cat([token_losses(model, batch)[0] for batch in batches]).mean().backward()
        assert torch.allclose(found, layers[BLOCK].weight.grad, rtol=1e-3, atol=1e-6)

    def test_a_layer_that_no_token_reaches_has_zeros(self, batches):
        model = build_model()
        unused = torch.nn.Linear(8, 4, bias=False)
        found = layer_statistics(model, {BLOCK: model.get_submodule(BLOCK), "expert": unused}, batches)
        assert not found["expert"].gradient.any()
        assert found["expert"].outputs.shape == (4, 4)
        assert found[BLOCK].gradient.any()

    def test_leaves_no_hook_gradient_or_mode_behind(self, batches):
        model = build_model().train()
        model.requires_grad_(False)
        layers = {BLOCK: model.get_submodule(BLOCK)}
        layer_statistics(model, layers, batches)
        assert model.training
        assert not layers[BLOCK]._forward_hooks
        assert not model.get_input_embeddings()._forward_hooks
        assert all(parameter.grad is None and not parameter.requires_grad for parameter in model.parameters())

    def test_drawn_labels_follow_the_seed(self, batches):
        model = build_model()
        layers = {BLOCK: model.get_submodule(BLOCK)}
        first, again, other = (layer_statistics(model, layers, batches, seed)[BLOCK].outputs for seed in (0, 0, 1))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)


def random_statistics(m, n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x, g = torch.randn(40, n, generator=generator), torch.randn(40, m, generator=generator)
    return LayerStatistics(g.T @ x / 40, x.T @ x / 40, g.T @ g / 40)


class TestFast:
    def start(self, seed=1):
        generator = torch.Generator().manual_seed(seed)
        return Start(torch.randn(3, 7, generator=generator), torch.randn(5, 3, generator=generator), 0.7)

    @staticmethod
    def largest_of_the_model(statistics, start):
        """Largest eigenvalue of the second derivative of the quadratic model that the closed form stands for."""

        def change(flat):
            da, db = flat[: start.a.numel()].view_as(start.a), flat[start.a.numel() :].view_as(start.b)
            dw = start.scaling * (start.b @ da + db @ start.a)
            fisher = 0.5 * torch.trace(statistics.outputs @ dw @ statistics.inputs @ dw.T)
            return fisher + start.scaling * (statistics.gradient * (db @ da)).sum()

        size = start.a.numel() + start.b.numel()
        return torch.linalg.eigvalsh(torch.autograd.functional.hessian(change, torch.zeros(size)))[-1].item()

    def test_closed_form_is_exact_where_b_is_zero_and_the_gradient_dominates(self):
        statistics, start = random_statistics(5, 7), self.start()
        start = Start(1e-4 * start.a, torch.zeros_like(start.b), start.scaling)
        expected = start.scaling * torch.linalg.svdvals(statistics.gradient)[0].item()
        assert KfacBlock(statistics).curvature(start) == pytest.approx(expected, rel=1e-3)

    @pytest.mark.parametrize("seed", range(5))
    def test_closed_form_is_near_the_quadratic_model_s_largest_eigenvalue(self, seed):
        statistics, start = random_statistics(5, 7, seed), self.start(seed)
        exact = self.largest_of_the_model(statistics, start)
        assert 0.7 * exact < KfacBlock(statistics).curvature(start) < 1.5 * exact

    def test_large_layers_give_the_same_as_small_ones(self, monkeypatch):
        generator = torch.Generator().manual_seed(0)
        statistics = random_statistics(40, 50)
        start = Start(torch.randn(3, 50, generator=generator), torch.randn(40, 3, generator=generator), 0.7)
        dense = KfacBlock(statistics).curvature(start)
        monkeypatch.setattr(kfac, "DENSE", 2)
        assert KfacBlock(statistics).curvature(start) == pytest.approx(dense, rel=1e-3)

    def test_covers_all_layers_and_types(self, batches):
        model = build_model()
        found = priors.curvature(model, batches, ["lora", "dora"], rank=2, alpha=2)
        assert list(found["lora"].per_block) == list(linear_layers(model))
        assert set(found["lora"].per_type) == {matrix_type(name) for name in linear_layers(model)}
        assert found["dora"].per_block == pytest.approx(found["lora"].per_block)

    def test_rank_stabilized_lora_is_lora_at_the_same_s(self, batches):
        found = priors.curvature(build_model(), batches, ["lora", "rslora"], rank=4, alpha=None)
        assert found["rslora"].per_block == pytest.approx(found["lora"].per_block)

    def test_reads_the_model_once_for_all_variants(self, batches):
        model = build_model()
        passes = []
        hook = model.register_forward_hook(lambda *_: passes.append(1))
        priors.curvature(model, batches, ["lora", "dora", "pissa", "olora"], rank=2, alpha=2)
        hook.remove()
        assert len(passes) == len(batches)


def test_exact_blocks_are_spread_over_types_first_then_depths():
    layers = [f"layers.{depth}.{kind}" for depth in range(5) for kind in ("q", "k", "v")]
    assert spread_blocks(layers, 3) == ["layers.2.q", "layers.2.k", "layers.2.v"]
    assert spread_blocks(layers, 6) == [f"layers.{depth}.{kind}" for depth in (1, 3) for kind in ("q", "k", "v")]
    assert spread_blocks(layers, 99) == layers


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "exact"}, "'kfac' or 'lanczos'"),
        ({"blocks": ["model.layers.1.self_attn.q_pro"]}, "did you mean 'model.layers.1.self_attn.q_proj'"),
        ({"batches": []}, "batches is empty"),
    ],
)
def test_wrong_arguments_are_named(settings, message, batches):
    with pytest.raises(CurvatureError, match=message):
        priors.curvature(build_model(), **{"batches": batches, "variants": ["lora"], **settings})

"""Methods that PEFT has beside LoRA: VeRA, HiRA, LoHa, LoKr."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from autolora.adapters.attachment import attachment
from autolora.adapters.kernels.hadamard import hadamard_linear
from autolora.adapters.kernels.hira import LeanHira
from autolora.adapters.kernels.loha import LeanLoha
from autolora.adapters.kernels.lokr import LeanLokr
from autolora.adapters.start import DEFAULT_NAME
from autolora.adapters.state import adapter_state, load_adapter_state
from autolora.variants import VariantError, get

LEAN_CLASS = {"hira": LeanHira, "loha": LeanLoha, "lokr": LeanLokr}
RATE = {"hira": 5e-2, "loha": 5e-2, "lokr": 2e-2, "vera": 5e-2}


def attached(name, base, rank=4, **options):
    """At s = 1, brisk enough to move the update to W's size in a few steps."""
    variant = get(name).configured(**options)
    model = variant.attach(base, rank=rank, alpha=rank, seed=3)
    return model, variant.optimizer(model, RATE[name])


def update(layer):
    """(m, n): what the layer's adapter adds to W, by what PEFT merges."""
    delta = layer.module.get_delta_weight(layer.adapter).detach()
    return delta.T if isinstance(layer.base_layer, Conv1D) else delta


def own(layer):
    return {name.removesuffix(f".{DEFAULT_NAME}"): p.detach() for name, p in layer.parameters.items()}


LEAN_ON = [("hira", "llama"), ("hira", "gpt2"), ("loha", "llama"), ("lokr", "llama"), ("lokr", "qwen3")]


@pytest.fixture
def both_passes(tokens, monkeypatch):
    """``both_passes(name, run)``: what ``run()`` gives with the lean forward pass, and with PEFT's."""

    def evaluate(name, run):
        lean = run()
        with monkeypatch.context() as patch:
            patch.delattr(LEAN_CLASS[name], "forward")  # its parent is PEFT's
            return lean, run()

    return evaluate


@pytest.mark.parametrize(("name", "family"), LEAN_ON)
def test_the_lean_pass_trains_as_peft_s_own(build, train, tokens, difference, both_passes, name, family):
    """Logits, gradients and a few steps."""

    def run():
        model, optimizer = attached(name, build(family))
        losses = train(model, optimizer, 4)
        output = model(input_ids=tokens, labels=tokens)
        output.loss.backward()
        return losses, output.logits, {key: p.grad for key, p in model.named_parameters() if p.requires_grad}

    (losses, logits, gradients), (expected, their_logits, theirs) = both_passes(name, run)
    assert losses == pytest.approx(expected, rel=1e-5)
    assert losses[-1] < losses[0] - 0.2
    assert difference(logits, their_logits) < 1e-4
    for key, gradient in gradients.items():
        assert difference(gradient, theirs[key]) < 1e-4, key


@pytest.mark.parametrize(("name", "family"), LEAN_ON)
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_in_half_precision_the_lean_pass_errs_as_peft_s(
    build, train, tokens, both_passes, name, family, autocast, dtype
):
    """Logits and gradients against float32's, of the same trained adapter on the same weights."""
    rounded = build(family).to(torch.bfloat16).state_dict()

    def evaluate(dtype, autocast, state=None):
        base = build(family)
        base.load_state_dict(rounded)
        model, optimizer = attached(name, base.to(dtype))
        if state is None:
            train(model, optimizer, 4)
        else:
            load_adapter_state(model, state)
        model.train()
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            output = model(input_ids=tokens, labels=tokens)
        output.loss.backward()
        gradients = [p.grad for p in model.parameters() if p.requires_grad]
        assert all(gradient.dtype == torch.float32 for gradient in gradients)
        return adapter_state(model), [output.logits.detach().float(), *gradients]

    state, exact = evaluate(torch.float32, autocast=False)
    (_, lean), (_, theirs) = both_passes(name, lambda: evaluate(dtype, autocast, state))

    def error(found):
        return sum(((f - e).norm() / e.norm()).square() for f, e in zip(found, exact, strict=True)) ** 0.5

    assert error(lean) < 1.3 * error(theirs)
    assert (lean[0] - exact[0]).norm() < 0.05 * exact[0].norm()


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("second_pair", [False, True])
def test_the_backward_pass_is_the_derivative(transposed, second_pair):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()

    layer = (Conv1D(5, 6) if transposed else nn.Linear(6, 5)).double().requires_grad_(False)
    pairs = [draw(2, 6), draw(5, 2)] + ([draw(2, 6), draw(5, 2)] if second_pair else [])

    def run(x, a, b, *other):
        return hadamard_linear(layer, x, a, b, 0.7, other or None)

    assert torch.autograd.gradcheck(run, (draw(3, 4, 6), *pairs))
    assert torch.autograd.gradgradcheck(run, (draw(2, 2, 6), *pairs))  # curvature differentiates it again
    weight = layer.weight.T if transposed else layer.weight
    partner = pairs[3] @ pairs[2] if second_pair else weight
    x = draw(3, 6)
    expected = x @ (weight + 0.7 * partner * (pairs[1] @ pairs[0])).T + layer.bias
    assert torch.allclose(run(x, *pairs), expected)


@pytest.mark.parametrize("name", ["hira", "loha"])
def test_nothing_of_the_weight_s_size_is_kept(build, tokens, name):
    model, _ = attached(name, build())
    layers = attachment(model).layers
    bases = {layer.base_layer.weight.data_ptr() for layer in layers.values()}
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        layer = layers["model.layers.0.mlp.up_proj"]
        layer.module(torch.zeros(3, 32, requires_grad=True))
    assert {t.numel() for t in kept if t.data_ptr() not in bases} <= {3 * 32, 4 * 32, 4 * 48}


@pytest.mark.parametrize(
    ("dtype", "autocast"), [(torch.float32, True), (torch.bfloat16, False), (torch.bfloat16, True)]
)
def test_hira_s_small_updates_survive_half_precision(difference, dtype, autocast):
    """1 + 2^-10 is 1 in bfloat16: adding before multiplying would lose them all."""
    layer = nn.Linear(64, 48, bias=False).requires_grad_(False)
    nn.init.ones_(layer.weight)
    signs = torch.tensor([1.0, -1.0]).repeat(32)
    a, b = 2.0**-10 * signs[None], torch.rand(48, 1, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = hadamard_linear(layer.to(dtype), signs.to(dtype)[None], a, b)
    assert y.dtype == torch.bfloat16
    assert difference(y.float(), b.T / 16) < 0.01


def test_hira_drops_out_of_the_update_s_input_alone(build, difference):
    """As PEFT: in training W sees all of x, and the update some of it; in evaluation nothing is dropped."""
    model = get("hira").attach(build(), rank=4, alpha=4, dropout=0.5)
    layer = attachment(model).layers["model.layers.0.mlp.up_proj"]
    layer.entry("hira_B").data.normal_()
    x = torch.randn(3, 32)
    weight, changed = layer.base_layer.weight, layer.module.get_delta_weight(layer.adapter)
    model.train()
    torch.manual_seed(0)
    y = layer.module(x)
    torch.manual_seed(0)
    expected = x @ weight.T + nn.functional.dropout(x, 0.5) @ (weight * changed).T
    assert difference(y, expected) < 1e-5
    model.eval()
    assert difference(layer.module(x), x @ (weight * (1 + changed)).T) < 1e-5


def test_hira_s_update_is_w_times_b_a_and_of_high_rank(build, train, difference):
    model, optimizer = attached("hira", build())
    train(model, optimizer, 5)
    for layer in attachment(model).layers.values():
        factors, weight = own(layer), layer.base_layer.weight
        x = torch.eye(layer.in_features)
        with torch.no_grad():
            change = (layer.module(x) - layer.base_layer(x)).T
        assert difference(change, weight * (factors["hira_B"] @ factors["hira_A"])) < 1e-4
        assert torch.linalg.matrix_rank(change, rtol=1e-4) == min(weight.shape)


@pytest.mark.parametrize("name", ["hira", "loha"])
def test_a_quantized_layer_is_left_to_peft(build, name):
    base = build()
    layer = base.get_submodule("model.layers.1.mlp.up_proj")
    layer.weight = nn.Parameter(torch.ones(layer.weight.shape, dtype=torch.int8), requires_grad=False)
    layers = attachment(attached(name, base)[0]).layers
    assert not isinstance(layers["model.layers.1.mlp.up_proj"].module, LEAN_CLASS[name])
    assert isinstance(layers["model.layers.0.mlp.up_proj"].module, LEAN_CLASS[name])


def test_disabling_the_adapter_gives_the_base(build, train, logits, difference):
    for name, lean in LEAN_CLASS.items():
        expected = logits(build())
        model, optimizer = attached(name, build())
        train(model, optimizer, 3)
        assert isinstance(next(iter(attachment(model).layers.values())).module, lean)
        trained = logits(model)
        assert difference(trained, expected) > 0.01
        with model.disable_adapter():
            assert torch.equal(logits(model), expected)
        model.merge_adapter()
        assert difference(logits(model), trained) < 1e-4
        model.unmerge_adapter()
        assert difference(logits(model), trained) < 1e-4


def test_loha_s_update_is_a_hadamard_product_of_squared_rank(build, train, difference):
    rank = 4
    model = get("loha").attach(build(), rank=rank, alpha=3.0 * rank)
    for layer in attachment(model).layers.values():
        factors = own(layer)
        assert not factors["hada_w2_b"].any()
        for name in ("hada_w1_a", "hada_w1_b", "hada_w2_a"):
            bound = factors[name].shape[1] ** -0.5
            assert 0.9 * bound < factors[name].abs().max() <= bound
    train(model, get("loha").optimizer(model, 5e-2), 5)
    for layer in attachment(model).layers.values():
        f = own(layer)
        product = (f["hada_w1_a"] @ f["hada_w1_b"]) * (f["hada_w2_a"] @ f["hada_w2_b"])
        assert difference(update(layer), 3 * product) < 1e-5
        # The product's factors are the r^2 products of columns of B1 and B2, and of rows of A1 and A2.
        columns = torch.einsum("mi,mj->mij", f["hada_w1_a"], f["hada_w2_a"]).flatten(1)
        rows = torch.einsum("in,jn->ijn", f["hada_w1_b"], f["hada_w2_b"]).flatten(0, 1)
        assert difference(product, columns @ rows) < 1e-5
        assert torch.linalg.matrix_rank(update(layer).double(), rtol=1e-6) == rank**2
        assert sum(p.numel() for p in f.values()) == 2 * rank * (layer.in_features + layer.out_features)


@pytest.mark.parametrize(("factor", "rank", "whole"), [(None, 4, True), (None, 2, False), (4, 3, False), (2, 2, False)])
def test_lokr_s_update_is_a_kronecker_product(build, train, difference, factor, rank, whole):
    variant = get("lokr").configured(factor=factor)
    model = variant.attach(build(), rank=rank, alpha=3.0 * rank)
    for layer in attachment(model).layers.values():
        assert not own(layer)["lokr_w1"].any()
    train(model, variant.optimizer(model, 2e-2), 5)
    for layer in attachment(model).layers.values():
        f = own(layer)
        assert ("lokr_w2" in f) == whole
        w1, w2 = f["lokr_w1"], f["lokr_w2"] if whole else f["lokr_w2_a"] @ f["lokr_w2_b"]
        product = 3 * torch.kron(w1, w2)
        assert difference(update(layer), product) < 1e-5
        x = torch.eye(layer.in_features)
        with torch.no_grad():
            assert difference((layer.module(x) - layer.base_layer(x)).T, product) < 1e-4
        rank_of = torch.linalg.matrix_rank
        assert rank_of(product, rtol=1e-5) == rank_of(w1, rtol=1e-5) * rank_of(w2, rtol=1e-5) > rank
        if factor is not None:
            assert w1.shape == (factor, factor)
            width, height = layer.in_features // factor, layer.out_features // factor
            assert sum(p.numel() for p in f.values()) == factor**2 + rank * (width + height)


@pytest.mark.parametrize("name", ["hira", "vera"])
def test_what_has_no_scale_takes_alpha_at_the_rank_alone(build, fingerprint, name):
    base = build()
    before = fingerprint(base)
    with pytest.raises(VariantError, match=rf"{name} got alpha 8 at rank 4.*use alpha = rank"):
        get(name).attach(base, rank=4, alpha=8)
    assert fingerprint(base) == before


class TestVera:
    @pytest.mark.parametrize("family", ["llama", "gpt2"])
    def test_a_layer_is_its_formula_and_its_plain_factors(self, build, train, difference, family):
        model, optimizer = attached("vera", build(family), rank=8)
        train(model, optimizer, 5)
        a, b = model.base_model.vera_A[DEFAULT_NAME], model.base_model.vera_B[DEFAULT_NAME]
        widths = [(layer.out_features, layer.in_features) for layer in attachment(model).layers.values()]
        assert a.shape == (8, max(n for _, n in widths))
        assert b.shape == (max(m for m, _ in widths), 8)
        for layer in attachment(model).layers.values():
            vectors = own(layer)
            left, right = b[: layer.out_features], a[:, : layer.in_features]
            x = torch.randn(5, layer.in_features)
            inner = vectors["vera_lambda_d"] * (x @ right.T)
            change = vectors["vera_lambda_b"] * (inner @ left.T)
            assert difference(layer.module(x), layer.base_layer(x) + change) < 1e-5
            plain_a, plain_b = get("vera").plain_factors(layer)
            assert plain_a.shape == right.shape
            assert plain_b.shape == left.shape
            assert difference(plain_b @ plain_a, update(layer)) < 1e-5
            assert {key: p.numel() for key, p in vectors.items()} == {
                "vera_lambda_b": layer.out_features,
                "vera_lambda_d": 8,
            }

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_it_starts_as_published(self, build, dtype):
        model, _ = attached("vera", build().to(dtype), rank=8)
        for layer in attachment(model).layers.values():
            vectors = own(layer)
            assert torch.equal(vectors["vera_lambda_d"], torch.full((8,), 0.1))
            assert not vectors["vera_lambda_b"].any()
        for bases in (model.base_model.vera_A[DEFAULT_NAME], model.base_model.vera_B[DEFAULT_NAME]):
            bound = (6 / bases.shape[1]) ** 0.5
            assert bases.dtype == torch.float32
            assert 0.97 * bound < bases.abs().max() <= bound

    def test_bases_are_shared_frozen_of_the_seed_and_in_the_state(self, build, train):
        def bases(seed):
            model = get("vera").attach(build(), rank=8, alpha=8, seed=seed)
            return model, model.base_model.vera_A[DEFAULT_NAME], model.base_model.vera_B[DEFAULT_NAME]

        model, a, b = bases(1)
        before = a.clone(), b.clone()
        layers = list(attachment(model).layers.values())
        assert all(layer.entry("vera_A") is a and layer.entry("vera_B") is b for layer in layers)
        train(model, get("vera").optimizer(model, 1e-2), 3)
        assert torch.equal(a, before[0])
        assert torch.equal(b, before[1])
        assert torch.equal(bases(1)[1], a)
        assert not torch.equal(bases(2)[1], a)
        state = adapter_state(model)
        assert sum(tensor.shape == a.shape and torch.equal(tensor, a) for tensor in state.values()) == 1

"""Alpha's law as published, and the scaling-law coordinates."""

from __future__ import annotations

import itertools
import math

import pytest

from autolora import laws, variants
from autolora.space import Config, Coordinates, Space, Traits

LORA = Traits()
RANKS = (1, 4, 8, 16, 32, 64, 128, 256)
CONFIG = Config(learning_rate=2e-4, batch_size=16, rank=8, alpha=16.0)
NAMES = pytest.mark.parametrize("name", variants.names())


def traits(name: str) -> Traits:
    return variants.get(name).traits


def test_the_analytic_law_of_alpha():
    """REFERENCE: sqrt(3 n r) for n = 4096."""
    space = Space(alpha="law", hidden_size=4096)
    assert [round(space.alphas(LORA, rank)[0]) for rank in RANKS] == [111, 222, 314, 443, 627, 887, 1254, 1774]


def test_the_empirical_law_of_alpha():
    """REFERENCE: 256 sqrt(r), where no width is known."""
    space = Space(alpha="law")
    assert [round(space.alphas(LORA, rank)[0]) for rank in RANKS] == [256, 512, 724, 1024, 1448, 2048, 2896, 4096]


def test_the_law_is_alpha_equal_r_where_a_is_not_kaiming_uniform():
    assert Traits(alpha_law=1.0).law_alpha(16, 4096) == 16.0


def test_scale():
    assert LORA.scale(16.0, 8) == 2.0
    assert Traits(rank_stabilized=True).scale(16.0, 4) == 8.0


@NAMES
@pytest.mark.parametrize("hidden_size", [None, 64])
def test_learning_rate_is_the_inverse_of_z(name, hidden_size):
    coordinates = Coordinates(-3.7, hidden_size)
    for batch, rank, alpha, eta in itertools.product((1, 16), (1, 8, 64), (1.0, 16.0, 700.0), (1e-6, 3e-3)):
        z = coordinates.z(traits(name), Config(eta, batch, rank, alpha))
        assert coordinates.learning_rate(traits(name), z, batch, rank, alpha) == pytest.approx(eta)


def test_z_is_zero_at_the_centre():
    assert Coordinates(-3.0).z(LORA, Config(1e-3, 1, 1, 1.0)) == pytest.approx(0.0)


def test_z_counts_decades_of_the_learning_rate():
    coordinates = Coordinates(-3.0)
    tenfold = Config(CONFIG.learning_rate * 10, CONFIG.batch_size, CONFIG.rank, CONFIG.alpha)
    assert coordinates.z(LORA, tenfold) - coordinates.z(LORA, CONFIG) == pytest.approx(1.0)


def test_w_counts_octaves_from_the_law():
    coordinates = Coordinates(0.0, hidden_size=4096)
    assert coordinates.w(LORA, Config(1e-3, 8, 16, LORA.law_alpha(16, 4096))) == pytest.approx(0.0)
    assert coordinates.w(LORA, Config(1e-3, 8, 16, 2 * LORA.law_alpha(16, 4096))) == pytest.approx(1.0)


def test_conventional_alphas_lie_far_below_the_law():
    """REFERENCE: a setting with s = 1 or 2 has w far below 0."""
    assert Coordinates(0.0, hidden_size=4096).w(LORA, CONFIG) < -4


@NAMES
def test_the_same_z_is_a_smaller_rate_at_a_larger_scale(name):
    rates = [Coordinates(-3.0).learning_rate(traits(name), 0.0, 16, 8, alpha) for alpha in (4.0, 8.0, 16.0, 200.0)]
    assert rates == sorted(rates, reverse=True)
    assert len(set(rates)) == 4


@NAMES
def test_the_same_z_and_scale_are_a_smaller_rate_at_a_larger_rank(name):
    unit = traits(name).scale
    rates = [Coordinates(-3.0).learning_rate(traits(name), 0.0, 16, rank, 2 / unit(1.0, rank)) for rank in (4, 16, 64)]
    fall = 4**laws.RANK_EXPONENT
    assert rates == pytest.approx([rates[0], rates[0] * fall, rates[0] * fall**2])
    assert fall < 1


@NAMES
def test_the_same_z_is_a_larger_rate_at_a_larger_batch(name):
    rates = [Coordinates(-3.0).learning_rate(traits(name), 0.0, batch, 8, 8.0) for batch in (4, 16, 64)]
    assert rates == pytest.approx([rates[0], 2 * rates[0], 4 * rates[0]])


def test_at_alpha_equal_r_the_rate_falls_with_the_rank_about_as_measured():
    """REFERENCE: LR-matters, 5.6x from r = 4 to 256; LoRA-alpha's law says 8x."""
    rates = [Coordinates(-3.0).learning_rate(LORA, 0.0, 16, rank, float(rank)) for rank in (4, 256)]
    fall = math.log10(rates[0] / rates[1])
    assert fall == pytest.approx(math.log10(8), abs=laws.RANK_SD * math.log10(256 / 4))
    assert fall == pytest.approx(math.log10(5.6), abs=2 * laws.RANK_SD * math.log10(256 / 4))


def test_for_pissa_a_sixteenfold_scale_is_a_quarter_of_the_rate():
    """REFERENCE: s = 16 at eta / 4 is the same run as s = 1 at eta."""
    rates = [Coordinates(-3.0).learning_rate(traits("pissa"), 0.0, 16, 8, alpha) for alpha in (8.0, 128.0)]
    assert rates[0] / rates[1] == pytest.approx(4.0)

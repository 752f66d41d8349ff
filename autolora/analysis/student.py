"""Student's t distribution, in plain Python: its two-sided p and its critical values."""

from __future__ import annotations

import math

TERMS, TINY = 500, 1e-300


def two_sided_p(t: float, freedom: float) -> float:
    """Probability of a deviation of at least ``abs(t)`` with ``freedom`` degrees of freedom, not always whole."""
    return _incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t))


def critical(level: float, freedom: float) -> float:
    """The deviation that is exceeded with probability ``level``, both sides taken together; level above 1e-200."""
    # Newton's method on log p over log t, which is concave and nearly straight in the tail.
    t = 1.0
    for _ in range(100):
        p = two_sided_p(t, freedom)
        step = math.log(p / level) * p / (2 * t * _density(t, freedom))
        t *= math.exp(min(1.0, step))
        if abs(step) < 1e-12:
            break
    return t


def _density(t: float, freedom: float) -> float:
    front = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - 0.5 * math.log(freedom * math.pi)
    return math.exp(front - (freedom + 1) / 2 * math.log1p(t * t / freedom))


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """I_x(a, b) by its continued fraction (Numerical Recipes 6.4), on the side where that converges fast."""
    if x <= 0.0 or x >= 1.0:
        return min(1.0, max(0.0, x))
    if x > (a + 1) / (a + b + 2):
        return 1.0 - _incomplete_beta(b, a, 1.0 - x)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    c, d = 1.0, 1.0 / (1.0 - (a + b) * x / (a + 1) or TINY)
    fraction = d
    for m in range(1, TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        before = fraction
        for step in (even, odd):
            d = 1.0 / (1.0 + step * d or TINY)
            c = 1.0 + step / c or TINY
            fraction *= c * d
        if abs(fraction - before) <= 1e-15 * abs(fraction):
            break
    return math.exp(log_front) * fraction / a

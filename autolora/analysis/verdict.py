"""Which variants differ from plain LoRA beyond what seeds, examples and tuning explain, in numbers and in words."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Literal

from autolora.analysis.best import Best, scored_runs, seed_noise
from autolora.analysis.comparison import LEVEL, Difference, difference, holm
from autolora.files import Document
from autolora.search.trials import TrialTable

PLAIN = "lora"

Standing = Literal["better", "worse", "within noise", "unknown"]
Noise = Literal["seeds", "seeds and examples", "seeds and tuning", "seeds, examples and tuning"]


@dataclass(frozen=True)
class Verdict:
    """How the tuned configurations of the variants compare; see :mod:`autolora.analysis.comparison` for the estimator.

    Attributes:
        text: in words.
        reference: the variant that the others are compared with: plain LoRA where it was tuned, or else the best of
            those that are as simple to use, or else the best of all; None before any has a full-length score.
        differences: of every other variant, its score minus the reference's, with 95% interval and adjusted p.
        standings: of every other variant: "better", "worse" or "within noise" by p < 0.05; "unknown" where no
            configuration has a second seed.
        noise: what the intervals hold: "seeds", with "examples" where the metric tells of them, and with "tuning" where
            it is known how far the tuned configurations may be from their best; None where seed noise is unknown.
    """

    text: str
    reference: str | None
    differences: Mapping[str, Difference]
    standings: Mapping[str, Standing]
    noise: Noise | None

    def as_dict(self) -> dict[str, object]:
        return {
            "text": self.text,
            "reference": self.reference,
            "noise": self.noise,
            "differences": {
                name: {**asdict(found), "standing": self.standings[name]} for name, found in self.differences.items()
            },
        }

    @classmethod
    def from_dict(cls, raw: Document) -> Verdict:
        """The inverse of :meth:`as_dict`."""
        rows = {name: dict(row) for name, row in raw["differences"].items()}
        standings = {name: row.pop("standing") for name, row in rows.items()}
        differences = {name: _difference(row) for name, row in rows.items()}
        return cls(raw["text"], raw["reference"], differences, standings, raw["noise"])


def _difference(row: Document) -> Difference:
    pairs: Document = {key: tuple(value) for key, value in row.items() if isinstance(value, list)}
    return Difference(**{**row, **pairs})


def judge(
    table: TrialTable,
    found: Mapping[str, Best],
    simple: Collection[str] = (),
    shortfalls: Mapping[str, float] | None = None,
) -> Verdict:
    """Compare the tuned configurations of the variants.

    Args:
        table: everything that has happened.
        found: from :func:`autolora.analysis.best.best`.
        simple: variants that are as simple to use as plain LoRA, see :func:`autolora.variants.registry.simple`.
        shortfalls: how far each tuned configuration may be behind its variant's best, see
            :meth:`autolora.search.Search.shortfalls`; None where that is not known.
    """
    reference = reference_of(found, table.sign, simple)
    if reference is None:
        return Verdict("no variant has a full-length score yet.", None, {}, {}, None)
    noise = seed_noise(table, found)
    runs = {name: scored_runs(table, best.trials) for name, best in found.items()}
    raw = {}
    for name in runs:
        if name != reference:
            behind = (shortfalls[name], shortfalls[reference]) if shortfalls else None
            raw[name] = difference(runs[name], runs[reference], noise, behind, table.sign)
    adjusted = holm({name: one.p for name, one in raw.items() if one.p is not None})
    differences = {name: replace(one, p=adjusted.get(name)) for name, one in raw.items()}
    standings = {name: _standing(one, table.sign) for name, one in differences.items()}
    basis = _basis(differences.values(), bool(shortfalls)) if adjusted else None
    text = _words(reference, differences, standings, basis, table.sign)
    return Verdict(text, reference, differences, standings, basis)


def reference_of(found: Mapping[str, Best], sign: float, simple: Collection[str] = ()) -> str | None:
    """What the others are compared with, see :class:`Verdict`."""
    if PLAIN in found:
        return PLAIN
    candidates = [name for name in found if name in simple]
    return min(candidates or found, key=lambda name: sign * found[name].value, default=None)


def _basis(differences: Collection[Difference], tuning: bool) -> Noise:
    if all(one.example_error is not None for one in differences):
        return "seeds, examples and tuning" if tuning else "seeds and examples"
    return "seeds and tuning" if tuning else "seeds"


def _standing(one: Difference, sign: float) -> Standing:
    if one.p is None:
        return "unknown"
    if one.p >= LEVEL:
        return "within noise"
    return "better" if sign * one.value < 0 else "worse"


def _words(
    reference: str,
    differences: Mapping[str, Difference],
    standings: Mapping[str, Standing],
    basis: str | None,
    sign: float,
) -> str:
    base = "plain LoRA" if reference == PLAIN else reference
    if not differences:
        return f"only {base} has a full-length score: there is nothing to compare it with."
    if "unknown" in standings.values():
        return _unknown(base, differences)
    ordered = sorted(differences, key=lambda name: sign * differences[name].value)
    better, worse, within = (
        [name for name in ordered if standings[name] == kind] for kind in ("better", "worse", "within noise")
    )
    explained = f"what {basis} explain"
    parts = [f"{name} is better than {base} by {_size(differences[name])}" for name in better]
    if not better and within:
        claim = f"no variant is better beyond {explained}" if worse else f"no variant's difference exceeds {explained}"
        parts = [f"{base} is enough here: {claim} ({_bounds(within, differences, sign)})"]
    elif not better:
        parts = [f"{base} is enough here: no variant is better"]
    parts += [f"{name} is worse than {base} by {_size(differences[name])}" for name in worse]
    if better and within:
        parts.append(f"no difference beyond {explained}: {', '.join(within)}")
    return "; ".join(parts) + "."


def _unknown(base: str, differences: Mapping[str, Difference]) -> str:
    largest = max(differences, key=lambda name: abs(differences[name].value))
    return (
        f"differences to {base} cannot be told from seed noise, as no further seeds show how large that is (largest: "
        f"{largest} {differences[largest].value:+.3g}). From a budget of 4 on, full runs are kept for further seeds of "
        "the finalists; in a new study `confirm` says how many."
    )


def _bounds(within: list[str], differences: Mapping[str, Difference], sign: float) -> str:
    """The largest difference, and the largest gain that an interval leaves possible: what "enough" is worth."""
    name = max(within, key=lambda each: abs(differences[each].value))
    one = differences[name]
    low, high = _ends(one)
    text = f"largest: {name} {one.value:+.3g}, 95% interval {low:+.3g} to {high:+.3g}{_seeds(one)}"
    if low > 0 or high < 0:
        text += f", but p {one.p:.2g} among {len(differences)} comparisons"
    gains = {each: -_ends(differences[each])[0] if sign > 0 else _ends(differences[each])[1] for each in within}
    most = max(gains, key=gains.__getitem__)
    return f"{text}; a gain of up to {gains[most]:.3g} by {most} is not ruled out" if gains[most] > 0 else text


def _size(one: Difference) -> str:
    """A difference beyond noise, without its sign: "0.031 (95% interval 0.012 to 0.05, from 2 seeds each)"."""
    low, high = sorted(abs(end) for end in _ends(one))
    return f"{abs(one.value):.3g} (95% interval {low:.3g} to {high:.3g}{_seeds(one)})"


def _seeds(one: Difference) -> str:
    """How many seeds speak, which are few."""
    if one.seeds is None:
        return ""
    fewest, most = sorted(one.seeds)
    if fewest == most:
        return f", from {most} seed{'s' if most > 1 else ''} each"
    return f", from {fewest} and {most} seeds"


def _ends(one: Difference) -> tuple[float, float]:
    assert one.low is not None
    assert one.high is not None
    return one.low, one.high

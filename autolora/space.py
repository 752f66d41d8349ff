"""The search space, a point in it, and the scaling-law coordinates in which all variants look alike.

Notation: ``s`` is the factor in ``y = W x + s B A x``; ``r`` the rank; ``b`` the global batch size; ``eta`` the
learning rate.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from autolora import laws

AUTO_LEARNING_RATE = (1e-6, 1e-1)

Options = tuple[tuple[str, int | float], ...]
"""Values of a variant's own hyperparameters, sorted by name."""


class Range(BaseModel):
    """A log-uniform interval, both ends included."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    low: float = Field(gt=0, allow_inf_nan=False)
    high: float = Field(gt=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if not self.low < self.high:
            raise ValueError(f"the range ({self.low:g}, {self.high:g}) is empty: low must be below high")
        return self

    def contains(self, value: float) -> bool:
        return self.low * (1 - 1e-9) <= value <= self.high * (1 + 1e-9)

    def clip(self, value: float) -> float:
        return min(max(value, self.low), self.high)


def _as_range(value: Any, kinds: tuple[type, ...]) -> Any:
    """A mapping of low and high where ``value`` is a pair of numbers of one of the ``kinds``."""
    if not isinstance(value, (tuple, list)):
        return value
    # YAML 1.1 reads 1e-3 as a string
    numbers = type(value)(float(v) if isinstance(v, str) and _is_number(v) else v for v in value)
    if isinstance(value, kinds) and len(numbers) == 2 and all(isinstance(v, (int, float)) for v in numbers):
        return {"low": numbers[0], "high": numbers[1]}
    return numbers


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _learning_rate(value: Any) -> Any:
    """Two numbers are a range, in Python and in YAML alike."""
    return _as_range(value, (tuple, list))


def _alpha(value: Any) -> Any:
    """A tuple is a range, a list is a set of choices."""
    return _as_range(value, (tuple,))


def _choices(value: Any) -> Any:
    return [value] if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def _options(value: Any) -> dict[str, list[int | float]]:
    """Choices by "variant.option", given so or as a mapping for each variant."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{value!r} is not allowed; give choices by name, as in {{lora_ga.gamma: [4, 16, 64]}}")
    found: dict[str, list[int | float]] = {}
    for key, choices in _leaves(value):
        variant, _, option = key.partition(".")
        if not (variant and option) or "." in option:
            raise ValueError(f"{key!r} is not the name of an option; write variant.option, as in lora_ga.gamma")
        if key in found:
            raise ValueError(f"{key} is given twice")
        found[key] = _numbers(key, choices)
    return dict(sorted(found.items()))


def _leaves(tree: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _numbers(key: str, given: Any) -> list[int | float]:
    choices = list(given) if isinstance(given, (tuple, list)) else [given]
    numbers = [float(choice) if isinstance(choice, str) and _is_number(choice) else choice for choice in choices]
    allowed = (isinstance(n, (int, float)) and not isinstance(n, bool) and 0 < n < math.inf for n in numbers)
    if not (numbers and all(allowed)):
        raise ValueError(f"{key}: {given!r} is not allowed; use a number above 0, or a list of them")
    return sorted({_plain(number) for number in numbers})


def _plain(number: int | float) -> int | float:
    """Whole numbers as int: one value has one form, whether it was written as 16 or 16.0 or comes from a storage."""
    return int(number) if float(number).is_integer() else float(number)


Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Positives = Annotated[list[Positive], Field(min_length=1)]
Choices = Annotated[
    list[Annotated[int, Field(ge=1)]],
    BeforeValidator(_choices),
    Field(min_length=1),
    AfterValidator(lambda values: sorted(set(values))),
]


class Space(BaseModel):
    """What is searched.

    Args:
        learning_rate: ``(low, high)`` searched on a log scale, one number (pinned), a list of three or more choices,
            or ``"auto"``: 1e-6 to 1e-1.
        batch_size: choices of the global batch size (examples per optimiser step).
        rank: choices of the rank r.
        alpha: ``"law"`` (the square-root law of LoRA-alpha), ``"rank"`` (alpha = r), a number, a list of
            choices, or ``(low, high)``. Variants whose factors already carry the scale ignore ``"law"``, lists and
            ranges: there alpha is redundant with the learning rate and stays at r, as it does, whatever is given, for
            variants that are defined at s = 1 alone.
        hidden_size: width of the model. With it ``alpha="law"`` is analytic, sqrt(3 n r); without, 256 sqrt(r).
        options: choices of variants' own hyperparameters by "variant.option", as in ``{"lora_ga.gamma": [4, 16, 64]}``;
            a number pins one. What is not named stays at the variant's default.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    learning_rate: Annotated[Range | Positive | Positives | Literal["auto"], BeforeValidator(_learning_rate)] = Field(
        default="auto", description='"auto", a number, (low, high), or a list of three or more numbers, all above 0'
    )
    batch_size: Choices = Field(default=[16, 64], validate_default=True)
    rank: Choices = Field(default=[8, 32], validate_default=True)
    alpha: Annotated[Literal["law", "rank"] | Range | Positive | Positives, BeforeValidator(_alpha)] = Field(
        default="law",
        description='"law", "rank", a number, a list, or (low, high), in YAML {low: 8, high: 64}, all above 0',
    )
    hidden_size: int | None = Field(default=None, ge=1)
    options: Annotated[dict[str, list[int | float]], BeforeValidator(_options)] = Field(default={})

    @property
    def learning_rates(self) -> Range | list[float]:
        """The searched learning rates with ``"auto"`` resolved: a Range, or a list of choices."""
        if self.learning_rate == "auto":
            low, high = AUTO_LEARNING_RATE
            return Range(low=low, high=high)
        if isinstance(self.learning_rate, Range):
            return self.learning_rate
        if isinstance(self.learning_rate, list):
            return sorted(set(self.learning_rate))
        assert not isinstance(self.learning_rate, str)
        return [float(self.learning_rate)]

    def alphas(self, traits: Traits, rank: int) -> Range | list[float]:
        """The alphas searched for a variant at this rank: a Range, or a list of choices (one where it is pinned)."""
        if self.alpha == "rank" or traits.unit_scale:
            return [float(rank)]
        if isinstance(self.alpha, float):
            return [self.alpha]
        if self.alpha == "law":
            return [traits.law_alpha(rank, self.hidden_size)]
        if traits.alpha_redundant:
            return [float(rank)]
        assert not isinstance(self.alpha, str)
        return self.alpha if isinstance(self.alpha, Range) else sorted(set(self.alpha))

    @property
    def middle_rank(self) -> int:
        """The rank that a search starts at."""
        return self.rank[(len(self.rank) - 1) // 2]

    def options_of(self, variant: str) -> dict[str, list[int | float]]:
        """The choices of one variant's own hyperparameters, by option, sorted; empty where none is named."""
        named = {key.partition("."): choices for key, choices in self.options.items()}
        return {option: choices for (owner, _, option), choices in sorted(named.items()) if owner == variant}

    def combinations(self, variant: str) -> list[Options]:
        """Every setting of the options named of a variant: the empty one alone where there are none."""
        choices = self.options_of(variant)
        return [tuple(zip(choices, values, strict=True)) for values in product(*choices.values())]

    def enumerate(self, traits: Traits, variant: str | None = None) -> Iterator[Config] | None:
        """Every configuration of a finite space, or None where a learning rate or alpha is continuous.

        Args:
            traits: of the variant.
            variant: its name, by which the space names its options; None: without any.
        """
        rates = self.learning_rates
        if isinstance(rates, Range):
            return None
        settings: list[tuple[int, float]] = []
        for rank in self.rank:
            alphas = self.alphas(traits, rank)
            if isinstance(alphas, Range):
                return None
            settings.extend((rank, alpha) for alpha in alphas)
        own = self.combinations(variant) if variant else [()]
        return (
            Config(eta, batch, rank, alpha, options)
            for (rank, alpha), batch, eta, options in product(settings, self.batch_size, rates, own)
        )


@dataclass(frozen=True, order=True)
class Config:
    """One setting of the searched hyperparameters.

    Attributes:
        learning_rate: peak of the schedule.
        batch_size: examples per optimiser step, whatever fits the device at once.
        rank: r.
        alpha: numerator of the scaling; s = alpha / r, or alpha / sqrt(r) for rank-stabilised variants.
        options: the variant's own hyperparameters that the space names, sorted by name; a mapping is taken too.
    """

    learning_rate: float
    batch_size: int
    rank: int
    alpha: float
    options: Options = ()

    def __post_init__(self) -> None:
        options = sorted((name, _plain(value)) for name, value in dict(self.options).items())
        object.__setattr__(self, "options", tuple(options))

    def as_dict(self) -> dict[str, Any]:
        """As plain data; ``options`` is a mapping, there where it is not empty."""
        return {
            "learning_rate": self.learning_rate,
            "batch_size": self.batch_size,
            "rank": self.rank,
            "alpha": self.alpha,
            **({"options": dict(self.options)} if self.options else {}),
        }


@dataclass(frozen=True)
class Traits:
    """What the scaling laws need to know of a variant.

    Attributes:
        exponent: p in "eta s^p sqrt(r) is about constant".
        shift: log10 of the variant's best learning rate relative to plain LoRA's at s = 1.
        shift_sd: standard deviation of that shift, in decades.
        rank_stabilised: s = alpha / sqrt(r) instead of alpha / r.
        alpha_redundant: under Adam, alpha only rescales the learning rate: the pair is never searched together.
        alpha_law: the square-root law of alpha: "auto" is analytic where the model's width is known, "empirical" never;
            or the s that stands for it where its premise, a Kaiming-uniform A, fails.
        unit_scale: the variant is defined at s = 1 alone, so alpha is r whatever the space asks for.
    """

    exponent: float = laws.SCALE_EXPONENT
    shift: float = 0.0
    shift_sd: float = 0.15
    rank_stabilised: bool = False
    alpha_redundant: bool = False
    alpha_law: Literal["auto", "empirical"] | float = "auto"
    unit_scale: bool = False

    def scale(self, alpha: float, rank: int) -> float:
        """s of ``y = W x + s B A x``."""
        return alpha / math.sqrt(rank) if self.rank_stabilised else alpha / rank

    def unit_alpha(self, rank: int) -> float:
        """The alpha at which s = 1."""
        return math.sqrt(rank) if self.rank_stabilised else float(rank)

    def law_alpha(self, rank: int, hidden_size: int | None) -> float:
        """alpha by LoRA-alpha's square-root law.

        Analytic (Variant II) where the width n is known: alpha = sqrt(3 n r); empirical (Variant I) otherwise:
        256 sqrt(r). Rank-stabilised variants get the alpha of the same s. Where A is not Kaiming-uniform the law's
        premise fails and ``alpha_law`` is s itself.
        """
        if self.unit_scale:
            return self.unit_alpha(rank)
        if isinstance(self.alpha_law, float):
            return self.alpha_law * self.unit_alpha(rank)
        width = None if self.alpha_law == "empirical" else hidden_size
        alpha = laws.empirical_alpha(rank) if width is None else laws.analytic_alpha(rank, width)
        return alpha / math.sqrt(rank) if self.rank_stabilised else alpha


@dataclass(frozen=True)
class Coordinates:
    """Map between configurations and scaling-law coordinates (z, w).

    ``z = log10(eta s^p sqrt(r)) - q log10(b) - shift - centre``, with p and the shift from the variant's traits, the
    rest from :mod:`autolora.laws`, and ``w = log2(alpha / law_alpha(r))``. In them the good region of every
    variant, rank and batch size lies near z = 0.

    Attributes:
        centre: log10(eta) of plain LoRA's best at s = r = b = 1.
        hidden_size: the width that ``law_alpha`` uses, or None.
    """

    centre: float
    hidden_size: int | None = None

    def _log_rate_at_origin(self, traits: Traits, batch_size: int, rank: int, alpha: float) -> float:
        return (
            self.centre
            + traits.shift
            + laws.batch_factor(batch_size)
            + laws.scale_factor(traits.scale(alpha, rank), traits.exponent)
            + laws.rank_factor(rank)
        )

    def z(self, traits: Traits, config: Config) -> float:
        origin = self._log_rate_at_origin(traits, config.batch_size, config.rank, config.alpha)
        return math.log10(config.learning_rate) - origin

    def w(self, traits: Traits, config: Config) -> float:
        return math.log2(config.alpha / traits.law_alpha(config.rank, self.hidden_size))

    def learning_rate(self, traits: Traits, z: float, batch_size: int, rank: int, alpha: float) -> float:
        """The inverse of :meth:`z` at given batch size, rank and alpha."""
        return 10 ** (z + self._log_rate_at_origin(traits, batch_size, rank, alpha))

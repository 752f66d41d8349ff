"""What the scaling laws recommend for one setting: a learning rate with its interval, and what they rest on.

Numbers alone: nothing is loaded or measured, and the belief is that of :class:`autolora.priors.Prior`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property

from autolora import laws
from autolora.adapters.memory import Memory
from autolora.errors import AutoloraError
from autolora.priors.prior import Prior
from autolora.space import Config, registry
from autolora.space.dimension import UNSET
from autolora.variants import Variant

SHARE = 0.9
"""Share of the prior's informed part within the interval."""
USUAL_RANK = 32
USUAL_BATCH = 32
WORDS = {
    "hidden_size": "hidden size",
    "examples": "number of training examples",
    "batch_size": "batch size",
    "rank": "rank",
    "scale": "the scale s",
}
LIMITS = {
    "hidden_size": (1, 1_000_000),
    "rank": (1, 100_000),
    "alpha": (1e-6, 1e9),
    "batch_size": (1, 10_000_000),
    "examples": (1, 1e12),
}
"""Values beyond which nothing can be said."""
RATIOS = (0.25, 0.5, 1, 2, 4)
"""Batch sizes of the neighbors, over the one that was asked for; ranks have the middle three."""


class AdviceError(AutoloraError, ValueError):
    """The question cannot be answered; the message names the argument, its value and what to do."""


@dataclass(frozen=True)
class Neighbor:
    """The best guess at a setting next to the one that was asked for.

    Attributes:
        alpha: of the same s, or the variant's own.
    """

    rank: int
    alpha: float
    batch_size: int
    learning_rate: float


@dataclass(frozen=True)
class AlphaRate:
    """The best guess at the same setting with another alpha.

    Attributes:
        rule: that alpha follows: "rank", "2 x rank", or the square-root law of the variant.
    """

    rule: str
    alpha: float
    learning_rate: float


@dataclass(frozen=True)
class Outside:
    """A value outside of the range of the evidence.

    Attributes:
        name: of the value, as in :data:`autolora.laws.EVIDENCE`.
        value: that was asked for.
        bound: the nearest value of the evidence.
        factor: how far outside it lies, above 1.
        text: the same as a sentence.
    """

    name: str
    value: float
    bound: float
    factor: float
    text: str


@dataclass(frozen=True)
class Advice:
    """What is recommended before anything has been measured.

    Attributes:
        learning_rate: best guess of the best peak learning rate of an AdamW schedule.
        low, high: ends of the interval that holds it with probability 0.9, by the laws.
        reason: what they follow from, in words.
        variant: name of the LoRA variant.
        rank, alpha, scale: r, the numerator of the scaling, and s of ``y = W x + s B A x``.
        batch_size: examples per optimizer step.
        examples: training examples of a full run; None: unknown, so its law is left out and the interval wider.
        hidden_size: width of the language model; None: unknown, so its law is left out and the interval wider.
        assumed: why, by the name of each value that was not given.
        neighbors: best guesses at other ranks and batch sizes.
        alphas: best guesses at other alphas.
        advice: on rank and alpha, a paragraph each.
        evidence: range of each value in the runs on the nearest kind of models that the laws were fitted on.
        evidence_on: that kind: "large models" or "small models".
        outside: which values lie outside of it.
        notes: what else is to be known of the model and the question, a sentence or two each.
        memory: estimate of what training takes; None if it is not known: numbers were given, or a note says why.
        model: as it was given, or the name of its configuration; None if numbers were given.
    """

    learning_rate: float
    low: float
    high: float
    reason: str
    variant: str
    rank: int
    alpha: float
    scale: float
    batch_size: int
    examples: int | None
    hidden_size: int | None
    assumed: Mapping[str, str]
    neighbors: tuple[Neighbor, ...]
    alphas: tuple[AlphaRate, ...]
    advice: tuple[str, ...]
    evidence: Mapping[str, tuple[float, float]]
    evidence_on: str = ""
    outside: tuple[Outside, ...] = ()
    notes: tuple[str, ...] = ()
    memory: Memory | None = None
    model: str | None = None

    def as_dict(self) -> dict[str, object]:
        """As plain data, as JSON has it."""
        return {
            **self.__dict__,
            "assumed": dict(self.assumed),
            "neighbors": [asdict(each) for each in self.neighbors],
            "alphas": [asdict(each) for each in self.alphas],
            "advice": list(self.advice),
            "evidence": {name: list(ends) for name, ends in self.evidence.items()},
            "outside": [asdict(each) for each in self.outside],
            "notes": list(self.notes),
            "memory": None if self.memory is None else self.memory.as_dict(),
        }


@dataclass(frozen=True)
class Question:
    """A setting to advise on, whole and valid.

    Attributes:
        variant: the LoRA variant.
        config: rank, alpha and batch size; its learning rate has no meaning.
        hidden_size, examples: as in :class:`Advice`.
        assumed: why, by the name of each value that was not given.
        own_alpha: alpha at every rank is the variant's own law; otherwise s is what stays at other ranks.
    """

    variant: Variant
    config: Config
    hidden_size: int | None = None
    examples: int | None = None
    assumed: Mapping[str, str] = field(default_factory=dict)
    own_alpha: bool = False

    @classmethod
    def of(
        cls,
        variant: Variant,
        hidden_size: int | None = None,
        rank: int | None = None,
        alpha: float | None = None,
        batch_size: int | None = None,
        examples: int | None = None,
        usual_rank: int = USUAL_RANK,
    ) -> Question:
        """Check what was given and complete it.

        Args:
            variant: the LoRA variant.
            hidden_size, examples: None: unknown.
            rank, alpha, batch_size: None: a usual value, and the variant's own alpha.
            usual_rank: rank to take if none is given.

        Raises:
            AdviceError: a value is not possible.
        """
        given = {
            "hidden_size": hidden_size,
            "rank": rank,
            "alpha": alpha,
            "batch_size": batch_size,
            "examples": examples,
        }
        _check(given)
        assumed = {}
        if hidden_size is None:
            assumed["hidden_size"] = "unknown; its law is left out"
        if rank is None:
            rank, assumed["rank"] = min(usual_rank, hidden_size or usual_rank), "a usual one"
        if hidden_size is not None and rank > hidden_size:
            raise AdviceError(
                f"rank={rank}: no layer of a model of hidden size {hidden_size} has such a rank: lower it"
            )
        if batch_size is None:
            batch_size, assumed["batch_size"] = USUAL_BATCH, "a usual one"
        if examples is None:
            assumed["examples"] = "unknown; its law is left out"
        own = _alpha(variant, rank, alpha, hidden_size)
        if alpha is None or own.fixed:
            alpha, assumed["alpha"] = own.alpha, own.why
        config = UNSET.replaced(rank=int(rank), batch_size=int(batch_size), alpha=float(alpha))
        whole = None if examples is None else int(examples)
        return cls(variant, config, hidden_size, whole, assumed, variant.traits.alpha_law == "empirical")

    @cached_property
    def prior(self) -> Prior:
        """The belief of the laws for this width and length."""
        return Prior.from_laws(self.hidden_size, self.examples)

    @property
    def scale(self) -> float:
        """s of ``y = W x + s B A x``."""
        return self.variant.traits.scale(self.config.alpha, self.config.rank)

    def rate(self, **changes: float) -> float:
        """The best guess at this setting with other values of some hyperparameters."""
        return float(10 ** self.prior.belief(self.variant.traits, self.config.replaced(**changes)).mean)

    def alpha_at(self, rank: int) -> float:
        """The alpha that goes with another rank."""
        traits = self.variant.traits
        if self.own_alpha:
            return traits.law_alpha(rank, self.hidden_size)
        return self.scale * traits.unit_alpha(rank)


@dataclass(frozen=True)
class _Alpha:
    """The alpha that a variant has by itself, and whether it can have no other."""

    alpha: float
    why: str
    fixed: bool = False


def _alpha(variant: Variant, rank: int, given: float | None, hidden_size: int | None) -> _Alpha:
    traits = variant.traits
    law = traits.law_alpha(rank, hidden_size)
    if traits.unit_scale:
        ignored = "" if given is None or given == law else f"; {given:g} is ignored"
        if given == law:
            return _Alpha(law, "")
        return _Alpha(law, f"{variant.name} is defined at s = 1 alone{ignored}", fixed=True)
    if traits.alpha_law == "empirical":
        if given is not None and not math.isclose(given, law):
            raise AdviceError(
                f"alpha={given:g}: {variant.name} is plain LoRA but for its own law of alpha, {law:.4g} at rank "
                f"{rank}: leave alpha out, or take the variant lora"
            )
        return _Alpha(law, f"the law of {variant.name}")
    if isinstance(traits.alpha_law, float) and traits.alpha_law != 1.0:
        return _Alpha(law, f"s = {traits.alpha_law:g}, as {variant.name} has it")
    return _Alpha(traits.unit_alpha(rank), "s = 1")


def _check(given: Mapping[str, object]) -> None:
    """Raise ``AdviceError`` for a value that cannot be."""
    known = {dimension.name: dimension for dimension in registry()}
    for name, value in given.items():
        whole = name != "alpha"
        accepts = known["alpha" if name == "alpha" else "rank"].accepts
        low, high = LIMITS[name]
        if isinstance(value, (int, float)) and (0 < value < low or high < value < math.inf):
            raise AdviceError(f"{name} is outside of {low:g} to {high:,.0f}, where the laws say nothing")
        if value is not None and not accepts(value):
            wanted = "a whole number of at least 1" if whole else "a number above 0, such as the rank"
            raise AdviceError(f"{name}={value!r} is not allowed: give {wanted}")


def advise(question: Question, notes: tuple[str, ...] = (), memory: Memory | None = None) -> Advice:
    """Answer a question by the scaling laws.

    Args:
        question: the setting.
        notes, memory: see :class:`Advice`.
    """
    traits, config = question.variant.traits, question.config
    low, high = question.prior.interval(traits, config, SHARE)
    alphas = tuple(_alphas(question))
    kind, evidence = laws.evidence(question.hidden_size)
    return Advice(
        learning_rate=question.rate(),
        low=low,
        high=high,
        reason=_reason(question, high),
        variant=question.variant.name,
        rank=config.rank,
        alpha=config.alpha,
        scale=question.scale,
        batch_size=config.batch_size,
        examples=question.examples,
        hidden_size=question.hidden_size,
        assumed=question.assumed,
        neighbors=tuple(_neighbors(question)),
        alphas=alphas,
        advice=(_on_rank(), _on_alpha(question, alphas)),
        evidence=evidence,
        evidence_on=kind,
        outside=tuple(_outside(question)),
        notes=notes,
        memory=memory,
    )


def _reason(question: Question, high: float) -> str:
    rate, config, rank = question.rate(), question.config, 2 * question.config.rank
    same = "" if question.own_alpha else " and the same s"
    changes = {
        "the batch size": question.rate(batch_size=2 * config.batch_size),
        f"the rank{same}": question.rate(rank=rank, alpha=question.alpha_at(rank)),
    }
    if not question.variant.traits.unit_scale and not question.own_alpha:
        changes["alpha"] = question.rate(alpha=2 * config.alpha)
    doubled = ", ".join(f"{changed / rate:.2g} times at twice {what}" for what, changed in changes.items())
    unknown = [name for name in ("hidden_size", "examples") if name in question.assumed]
    left_out = "".join(f" The {WORDS[name]} is unknown, so the interval is wider." for name in unknown)
    return (
        f"The scaling laws for {question.variant.title}, evaluated at this setting; nothing was measured. The "
        f"interval, a factor of {high / rate:.2g} to either side, covers how far models and tasks differ, and how "
        f"uncertain the exponents and the variant's shift are.{left_out} By the laws, the rate is {doubled}."
    )


def _neighbors(question: Question) -> Iterator[Neighbor]:
    config, widest = question.config, question.hidden_size or math.inf
    ranks = [rank for rank in _times(config.rank, RATIOS[1:-1]) if rank <= widest]
    for rank in ranks:
        alpha = question.alpha_at(rank)
        for batch in _times(config.batch_size, RATIOS):
            rate = question.rate(rank=rank, alpha=alpha, batch_size=batch)
            yield Neighbor(rank, alpha, batch, rate)


def _times(value: int, ratios: tuple[float, ...]) -> list[int]:
    """The value times each ratio, where that is whole."""
    return [int(value * ratio) for ratio in ratios if value * ratio % 1 == 0]


def _alphas(question: Question) -> Iterator[AlphaRate]:
    traits, rank = question.variant.traits, question.config.rank
    if traits.unit_scale or question.own_alpha:
        return
    law = traits.law_alpha(rank, question.hidden_size)
    if traits.alpha_redundant:
        yield AlphaRate("rank", float(rank), question.rate(alpha=float(rank)))
        return
    rules = {"rank": float(rank), "2 x rank": 2.0 * rank, "square-root law": law}
    for rule, alpha in rules.items():
        if rule != "square-root law" or not isinstance(traits.alpha_law, float):
            yield AlphaRate(rule, alpha, question.rate(alpha=alpha))


def _on_rank() -> str:
    return (
        "Rank: in most published tables a larger rank is as good or better once its rate is tuned. It costs memory: "
        "r (m + n) trained numbers for a layer of m x n."
    )


def _on_alpha(question: Question, alphas: tuple[AlphaRate, ...]) -> str:
    variant = question.variant
    if variant.traits.unit_scale:
        return f"Alpha: {variant.name} is defined at s = 1, so alpha is always the rank."
    if question.own_alpha:
        return f"Alpha: {variant.name} follows its own law, so there is nothing to choose."
    pairs = ", ".join(f"{each.alpha:.4g} ({each.rule}) with {each.learning_rate:.1e}" for each in alphas)
    if variant.traits.alpha_redundant:
        what = f"for {variant.name} it only rescales the rate under Adam: keep alpha = rank and tune the rate"
    else:
        what = "under Adam mostly its product with the rate counts, so fix one and tune the other"
    return f"Alpha: {what}. At rank {question.config.rank}, take alpha {pairs}."


def _outside(question: Question) -> Iterator[Outside]:
    asked = {
        "hidden_size": question.hidden_size,
        "examples": question.examples,
        "batch_size": question.config.batch_size,
        "rank": question.config.rank,
        "scale": question.scale,
    }
    kind, ranges = laws.evidence(question.hidden_size)
    for name, value in asked.items():
        if value is None:
            continue
        low, high = ranges[name]
        if value > high:
            factor, end, bound = value / high, "times the largest", high
        elif value < low:
            factor, end, bound = low / value, "times below the smallest", low
        else:
            continue
        shown = f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
        text = f"{WORDS[name]} {shown} is {factor:.3g} {end} of the evidence on {kind}, {bound:,g}"
        yield Outside(name, value, bound, factor, text)

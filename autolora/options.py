"""A variant's own hyperparameters in a search: which the space may name, and the values a variant starts with."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from autolora import variants
from autolora.space import Config, Options, Space, Traits
from autolora.variants import Variant


def check(space: Space, names: Sequence[str]) -> None:
    """Raise ``ValueError`` where the variants of these names cannot be searched over the space."""
    for name in names:
        if variants.get(name).traits.alpha_law == "empirical" and space.alpha != "law":
            raise ValueError(
                f"space.alpha: {name} is plain LoRA but for its own law of alpha, so it needs alpha: law, not "
                f"{space.alpha!r}; or leave it out"
            )
    for key, choices in space.options.items():
        name, _, option = key.partition(".")
        fault = _fault(space, names, name, option, choices)
        if fault is not None:
            raise ValueError(f"space.options.{key}: {choices} is not allowed; {fault}")


def _fault(space: Space, names: Sequence[str], name: str, option: str, choices: Sequence[int | float]) -> str | None:
    if name not in names:
        hint = "" if name in variants.names() else _hint(name, names)
        return f"{name!r} is not among the variants tuned here, {', '.join(names)}{hint}"
    variant = variants.get(name)
    if option not in variant.options:
        known = ", ".join(variant.options) or "none"
        return f"{name} has no option {option!r}; its options: {known}{_hint(option, variant.options)}"
    kinds = variant.kinds(option)
    if not kinds & {int, float}:
        return f"{option} of {name} is {variant.options[option]!r}, and only numbers can be searched"
    if float not in kinds and not all(isinstance(choice, int) for choice in choices):
        return f"{option} of {name} takes whole numbers"
    redundant = option in variant.redundant_with_alpha
    if redundant and len(choices) > 1 and not _alpha_is_pinned(space, name):
        return (
            f"alpha is searched, and under Adam the two are redundant: {option} c at s is {option} 1 at c s where "
            "B0 = 0; give one number here, or pin space.alpha to a number, law or rank"
        )
    return None


def _alpha_is_pinned(space: Space, name: str) -> bool:
    alphas = [space.alphas(variants.get(name).traits, rank) for rank in space.rank]
    return all(isinstance(choices, list) and len(choices) == 1 for choices in alphas)


def _hint(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def start(space: Space, name: str, rank: int) -> Options:
    """Where a search over a variant's options starts: at the choice next to the variant's own default at this rank."""
    variant = variants.get(name)
    return tuple(
        (option, min(values, key=lambda value: abs(math.log(value / variant.default(option, rank)))))
        for option, values in space.options_of(name).items()
    )


def completed(space: Space, name: str, config: Config) -> Config:
    """A user's configuration with the options that the space names: as given there, as pinned, or as by default.

    A default that is None, for the variant to choose by the rank, stays so: the option is left out. Alpha is r where
    the variant has no other.

    Raises:
        ValueError: it sets an option that the space does not name.
    """
    own, given, choices = variants.get(name).options, dict(config.options), space.options_of(name)
    if not given.keys() <= choices.keys():
        unknown = ", ".join(f"{name}.{option}" for option in given if option not in choices)
        raise ValueError(f"the baseline of {name} sets {unknown}, which space.options does not name")
    start = {option: values[0] if len(values) == 1 else own[option] for option, values in choices.items()}
    filled = {option: value for option, value in (start | given).items() if value is not None}
    alpha = float(config.rank) if variants.get(name).traits.unit_scale else config.alpha
    return replace(config, alpha=alpha, options=tuple(filled.items()))


def traits(space: Space, name: str) -> Traits:
    """What the laws know of a variant where its options start: a ratio of rates, for instance, moves the best one."""
    return configured(name, start(space, name, space.middle_rank)).traits


def configured(name: str, values: Options) -> Variant:
    """The registered variant with these of its own hyperparameters set."""
    return variants.get(name).configured(**dict(values))

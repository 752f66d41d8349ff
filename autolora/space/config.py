"""One setting of the searched hyperparameters."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from autolora.space.domain import plain
from autolora.space.named import Named, Scalar

Options = tuple[tuple[str, int | float], ...]
"""Values of a variant's own hyperparameters, sorted by name."""

Value = float | Options | Named
"""What a dimension may be set to."""

PlainValue = int | float | dict[str, Scalar | list[str]]
"""A value as plain data: a mapping for options and for fields."""


@dataclass(frozen=True, order=True, repr=False)
class Config:
    """One setting of the searched hyperparameters.

    Attributes:
        learning_rate: peak of the schedule.
        batch_size: examples per optimizer step, whatever fits the device at once.
        rank: r.
        alpha: numerator of the scaling; s = alpha / r, or alpha / sqrt(r) for rank-stabilized variants.
        options: the variant's own hyperparameters that the space names, sorted by name; a mapping is taken too.
        further: values of other searched dimensions by name, sorted; a mapping is taken too. Each is also an attribute
            of its own: ``config.dropout``; so are the values of a mapping among them: ``config.adam_beta2``.
    """

    learning_rate: float
    batch_size: int
    rank: int
    alpha: float
    options: Options = ()
    further: tuple[tuple[str, float | Named], ...] = ()

    def __post_init__(self) -> None:
        if self.options != ():
            options = sorted((name, plain(value)) for name, value in dict(self.options).items())
            object.__setattr__(self, "options", tuple(options))
        if self.further:
            found = {name: _held(value) for name, value in dict(self.further).items()}
            object.__setattr__(self, "further", tuple(sorted(found.items())))

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and name != "further":  # which a copy in the making does not have yet
            for own, value in self.further:
                if own == name:
                    return value
            for _, value in self.further:
                if isinstance(value, Named):
                    for own, inner in value:
                        if own == name:
                            return inner
        raise AttributeError(f"this configuration has no {name!r}")

    def __repr__(self) -> str:
        """Without ``further`` if that is empty: recorded benchmarks draw their noise by it."""
        parts = [f"{name}={getattr(self, name)!r}" for name in (*_FIELDS, *(["further"] if self.further else []))]
        return f"Config({', '.join(parts)})"

    @classmethod
    def of(cls, **values: Any) -> Config:
        """From :meth:`as_dict`, or from values of any dimensions by name."""
        own = {name: values.pop(name) for name in _FIELDS if name in values}
        return cls(**own, further=tuple(values.items()))

    def value(self, name: str) -> Any:
        """The value of a dimension by name; None if the configuration has none."""
        return getattr(self, name, None)

    def replaced(self, **values: Value) -> Config:
        """This configuration with other values of some dimensions."""
        fields = {**self.__dict__, **values}
        if len(fields) > len(self.__dict__):
            further = {name: fields.pop(name) for name in values if name not in self.__dict__}
            fields["further"] = tuple({**dict(self.further), **further}.items())
        return Config(**fields)  # not dataclasses.replace, which is slower: each proposal draws hundreds

    def as_dict(self) -> dict[str, PlainValue]:
        """As plain data; ``options`` is a mapping and left out if empty."""
        return {
            "learning_rate": self.learning_rate,
            "batch_size": self.batch_size,
            "rank": self.rank,
            "alpha": self.alpha,
            **({"options": dict(self.options)} if self.options else {}),
            **{name: value.as_dict() if isinstance(value, Named) else value for name, value in self.further},
        }


def _held(value: Any) -> float | Named:
    return value if isinstance(value, (int, float)) else Named.of(value)


_FIELDS = tuple(field.name for field in fields(Config) if field.name != "further")

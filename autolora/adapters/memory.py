"""What training an adapter takes in memory, and whether a device has it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

FLOAT32 = 4
STATE_BYTES = 2 * FLOAT32
"""Bytes of AdamW's two moments of each parameter that trains."""
ACTIVATION_BYTES = {2: 53, 4: 80}
"""Bytes kept for the backward pass for each hidden unit, layer and token, without gradient checkpointing, by the bytes
of a number of the base: with float32 adapters, on a half-precision base under autocast. For models whose step cannot
be counted."""
ROOM = 0.9
"""Share of a device's memory that a plan may fill: allocators waste some, and drivers, libraries and other processes
take theirs."""

Point = tuple[float, float, float]


def size(count: float) -> str:
    """Bytes for people: "3.2 MB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


@dataclass(frozen=True)
class Growth:
    """Bytes that live at once in a forward and backward pass, for any number of rows and tokens.

    Attributes:
        peaks: (bytes, bytes a token, bytes a token squared) at the moments that may be the largest; which of them is
            depends on the number of tokens.
        shallow: the same of a model with fewer blocks.
        further: how many times the difference between the two comes on top.
    """

    peaks: tuple[Point, ...]
    shallow: tuple[Point, ...] = ()
    further: float = 0.0

    @classmethod
    def of(cls, moments: Iterable[Point]) -> Growth:
        """The moments at which no other has more of everything."""
        kept: list[Point] = []
        for moment in sorted(set(moments), reverse=True):
            if not any(all(a >= b for a, b in zip(other, moment, strict=True)) for other in kept):
                kept.append(moment)
        return cls(tuple(kept))

    @classmethod
    def through(cls, first: tuple[int, Growth], second: tuple[int, Growth], rows: int) -> Growth:
        """What grows evenly with the tokens, beside what grows with their square, through what two lengths take.

        Args:
            first, second: a length, and what a pass of it takes; both of the same blocks.
            rows: of the passes.
        """
        (short, less), (long, more) = first, second
        both = zip((less.peaks, less.shallow), (more.peaks, more.shallow), strict=True)
        peaks, shallow = (_through((short, a), (long, b), rows) for a, b in both)
        return cls(peaks, shallow, more.further)

    def at(self, rows: int, length: int) -> int:
        """Bytes of a pass over rows of ``length`` tokens each."""
        most = _most(self.peaks, rows, length)
        if self.further:
            most += self.further * (most - _most(self.shallow, rows, length))
        return round(most)


def _most(peaks: Iterable[Point], rows: int, length: int) -> float:
    return max(_bytes(point, rows, length) for point in peaks)


def _bytes(point: Point, rows: int, length: int) -> float:
    fixed, linear, squared = point
    return fixed + rows * (linear * length + squared * length**2)


def _through(
    first: tuple[int, tuple[Point, ...]], second: tuple[int, tuple[Point, ...]], rows: int
) -> tuple[Point, ...]:
    """The line through the largest moments of two lengths; none if there are none."""
    (short, less), (long, more) = first, second
    if not less or not more:
        return ()
    low = max(less, key=lambda point: _bytes(point, rows, short))
    fixed, linear, squared = max(more, key=lambda point: _bytes(point, rows, long))
    below, above = low[0] + rows * low[1] * short, fixed + rows * linear * long
    slope = (above - below) / (long - short)
    return ((below - slope * short, slope / rows, squared),)


def by_formula(hidden_size: int, layers: int, width: int, checkpointing: bool) -> Growth:
    """What activations usually take.

    Args:
        hidden_size, layers: of the language model.
        width: bytes of a number of the base.
        checkpointing: with it, what goes into each layer is kept, and all of one layer.
    """
    layer = hidden_size * ACTIVATION_BYTES[width]
    a_token = layers * hidden_size * width + layer if checkpointing else layers * layer
    return Growth(((0.0, float(a_token), 0.0),))


@dataclass(frozen=True)
class Device:
    """What a plan is held against.

    Attributes:
        name: as torch names it.
        bytes: of memory: of the device, or of the machine that the process may use.
        limited: whether it is less than there is, by ``max_memory``.
    """

    name: str
    bytes: int
    limited: bool = False

    @property
    def owner(self) -> str:
        """Whose memory it is, for people: a GPU's, or else the machine's."""
        if self.limited:
            return "max_memory"
        return self.name if self.name.startswith("cuda") else "this machine"

    @property
    def verb(self) -> str:
        """What its owner does with its bytes, for people."""
        return "leaves" if self.limited else "has"

    def holds(self, size: int) -> bool:
        """Whether there is room for a plan of this size, see :data:`ROOM`."""
        return size <= ROOM * self.bytes


@dataclass(frozen=True)
class Remedy:
    """A change to a plan.

    Attributes:
        change: in words, such as "gradient checkpointing".
        total_bytes: of the plan with it.
        fits: whether it is enough.
        fields: of :class:`autolora.bases.planning.Setting` that it changes.
    """

    change: str
    total_bytes: int
    fits: bool
    fields: tuple[str, ...] = ()


@dataclass(frozen=True)
class Memory:
    """A plan of the memory of one setting on one device; what is measured differs by allocator and kernels.

    Attributes:
        variant, rank: of the adapter.
        parameters: of the base.
        base_bytes: of its weights.
        kept_bytes: of weights that the variant subtracts its start from, whose originals stay on the same device; of a
            base in few bits, of what is subtracted.
        dtype: of most of its weights, or of those that are not packed.
        bits: of its linear layers; None: they are in ``dtype``, too.
        trained: parameters of the adapter that train.
        optimizer_bytes: of the optimizer's state.
        hidden_size, layers: width and depth of the language model; None if its configuration does not name them.
        rows, length: of one forward pass; its rows have ``length`` tokens each.
        batch: rows before the trainer cut them into smaller passes to make them fit; None: it does not.
        activations: of a pass; None if not known.
        checkpointed: the same with gradient checkpointing; None if not known.
        checkpointing: whether this setting has it.
        yields_checkpointing: whether it has it because the trainer turns it on to make it fit.
        formula: why activations are estimated by :func:`by_formula`, or not known; empty if they were counted on a
            training step.
        device: None: not held against any.
        remedies: if the plan does not fit, what would make it fit or smaller.
    """

    variant: str
    rank: int
    parameters: int
    base_bytes: int
    dtype: str
    trained: int
    hidden_size: int | None
    layers: int | None
    length: int
    rows: int = 1
    batch: int | None = None
    bits: int | None = None
    kept_bytes: int = 0
    optimizer_bytes: int = 0
    activations: Growth | None = None
    checkpointed: Growth | None = None
    checkpointing: bool = False
    yields_checkpointing: bool = False
    formula: str = ""
    device: Device | None = None
    remedies: tuple[Remedy, ...] = ()

    @property
    def held(self) -> str:
        """How the base is held, for people: "bfloat16", or "4 bits and bfloat16"."""
        return f"{self.bits} bits and {self.dtype}" if self.bits else self.dtype

    @property
    def adapter_bytes(self) -> int:
        """Bytes of what trains: weights and gradients in float32, and the optimizer's state."""
        return 2 * FLOAT32 * self.trained + self.optimizer_bytes

    @property
    def resident_bytes(self) -> int:
        """Bytes of all but activations."""
        return self.base_bytes + self.kept_bytes + self.adapter_bytes

    @property
    def token_bytes(self) -> int | None:
        """Bytes of the activations of one token of a row of ``length``; None if not known."""
        return None if self.activations is None else round(self.activations.at(1, self.length) / self.length)

    @property
    def example_bytes(self) -> int | None:
        """Bytes of the activations of one example of ``length`` tokens; None if not known."""
        return None if self.activations is None else self.activations.at(1, self.length)

    @property
    def activation_bytes(self) -> int | None:
        """Bytes of the activations of ``rows`` examples of ``length`` tokens; None if not known."""
        return None if self.activations is None else self.activations.at(self.rows, self.length)

    @property
    def total_bytes(self) -> int | None:
        """Bytes of training without gradient checkpointing; None if not known."""
        return None if self.activations is None else self.resident_bytes + self.activations.at(self.rows, self.length)

    @property
    def checkpointed_bytes(self) -> int | None:
        """Bytes of training with gradient checkpointing; None if not known."""
        return None if self.checkpointed is None else self.resident_bytes + self.checkpointed.at(self.rows, self.length)

    @property
    def planned_bytes(self) -> int | None:
        """Bytes of training as this setting has it; None if not known."""
        return self.checkpointed_bytes if self.checkpointing else self.total_bytes

    @property
    def yielded(self) -> str:
        """What the trainer does by itself to make it fit, for people; empty if nothing."""
        cut = "" if self.batch is None else f"a batch of {self.batch} cut into passes of {self.rows}"
        return " and ".join(filter(None, [cut, "gradient checkpointing" if self.yields_checkpointing else ""]))

    @property
    def fits(self) -> bool | None:
        """Whether the device holds the setting; None if that is not known."""
        if self.device is None or self.planned_bytes is None:
            return None
        return self.device.holds(self.planned_bytes)

    def verdict(self) -> str:
        """Whether it fits, and if not, what would make it fit: sentences for people; empty if that is not known."""
        if self.fits is None:
            return ""
        assert self.device is not None
        assert self.planned_bytes is not None
        taken, there = size(self.planned_bytes), f"{self.device.owner} {self.device.verb} {size(self.device.bytes)}"
        taken += f" with {self.yielded}" if self.yielded else ""
        if self.fits:
            return f"The plan takes {taken}, and {there}: it fits."
        enough = [f"{remedy.change} ({size(remedy.total_bytes)})" for remedy in self.remedies if remedy.fits]
        helps = (
            f"What would make it fit: {'; or '.join(enough)}." if enough else "No change that was planned is enough."
        )
        return f"The plan takes {taken}, and {there}, of which {ROOM:.0%} may be filled: it does not fit. {helps}"

    def as_dict(self) -> dict[str, object]:
        """As plain data, what is computed included."""
        own = {key: value for key, value in asdict(self).items() if key not in ("activations", "checkpointed")}
        return {
            **own,
            "remedies": list(own["remedies"]),
            "adapter_bytes": self.adapter_bytes,
            "token_bytes": self.token_bytes,
            "example_bytes": self.example_bytes,
            "activation_bytes": self.activation_bytes,
            "total_bytes": self.total_bytes,
            "checkpointed_bytes": self.checkpointed_bytes,
            "planned_bytes": self.planned_bytes,
            "fits": self.fits,
        }

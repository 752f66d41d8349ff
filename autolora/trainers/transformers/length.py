"""How long a full run is, as the trainer itself counts it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autolora.errors import AutoloraError

if TYPE_CHECKING:
    import transformers


@dataclass(frozen=True)
class Epoch:
    """One pass of a trainer over its data.

    Attributes:
        rows: training examples, counted as the batch size counts them; None where the data have no end.
        steps: optimizer steps, at the trainer's own batch size.
        batch_size: that one.
        micro_batch: examples of one forward pass.
        drop_last: whether the last pass of an epoch is left out if it is cut.
    """

    rows: int | None
    steps: int
    batch_size: int
    micro_batch: int
    drop_last: bool = False

    @classmethod
    def of(cls, trainer: transformers.Trainer) -> Epoch:
        """That of a trainer, whose samplers, accumulation and ``drop_last`` it asks for."""
        args, loader = trainer.args, trainer.get_train_dataloader()
        batch_size = trainer.get_total_train_batch_size(args)
        micro = max(1, batch_size // args.gradient_accumulation_steps)
        length, drop_last = _length(loader), bool(args.dataloader_drop_last)
        if length is None:
            return cls(None, 0, batch_size, micro, drop_last)
        examples = trainer.num_examples(loader)
        # A sampler that repeats rows, as GRPO's, has other batches than its dataset has rows.
        usual = length in (math.ceil(examples / micro), examples // micro)
        steps = max(1, math.ceil(length / args.gradient_accumulation_steps))
        return cls(examples if usual else length * micro, steps, batch_size, micro, drop_last)

    def steps_of(self, examples: int) -> int:
        """Optimizer steps that train this many examples: the last batch of every epoch is cut, and so is the run's."""
        if self.rows is None:
            return max(1, math.ceil(examples / self.batch_size))
        whole, rest = divmod(examples, self.rows)
        return max(1, whole * self.steps + min(self.steps, math.ceil(rest / self.batch_size)))

    def examples_of(self, steps: int) -> int:
        """Training examples of this many optimizer steps."""
        if self.rows is None:
            return steps * self.batch_size
        seen = self.rows // self.micro_batch * self.micro_batch if self.drop_last else self.rows
        whole, rest = divmod(steps, self.steps)
        return whole * seen + min(seen, rest * self.batch_size)

    def with_batch(self, batch_size: int) -> Epoch:
        """What it would be with another batch size, by as large passes, or whole batches if it has these."""
        if batch_size == self.batch_size:
            return self
        micro = batch_size if self.micro_batch == self.batch_size else self.micro_batch
        if self.rows is None:
            return Epoch(None, 0, batch_size, micro, self.drop_last)
        rows = self.rows // micro * micro if self.drop_last else self.rows
        return Epoch(self.rows, max(1, math.ceil(rows / batch_size)), batch_size, micro, self.drop_last)


def own_examples(trainer: transformers.Trainer) -> int:
    """Training examples of a full run by the trainer's own arguments.

    Raises:
        AutoloraError: neither its arguments nor its data say it.
    """
    epoch, args = Epoch.of(trainer), trainer.args
    if args.max_steps > 0:
        return int(args.max_steps * epoch.batch_size)
    if epoch.rows is None:
        raise AutoloraError(
            "the trainer's training data have no length, and its arguments no max_steps: set training.examples, the "
            "examples of a full run"
        )
    return max(1, round(float(args.num_train_epochs) * epoch.rows))


def _length(loader: object) -> int | None:
    try:
        return len(loader)  # type: ignore[arg-type]
    except TypeError:  # of an iterable dataset
        return None

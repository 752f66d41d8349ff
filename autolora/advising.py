"""`autolora.recommend`: the laws' advice, on numbers or on a model of which the configuration is read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from autolora.priors.advice import Advice, AdviceError, Question, advise
from autolora.variants import registry

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

    from autolora.bases.outline import Outline
    from autolora.variants import Variant


def recommend(
    model: str | os.PathLike[str] | PretrainedConfig | PreTrainedModel | None = None,
    hidden_size: int | None = None,
    variant: str = "lora",
    rank: int | None = None,
    alpha: float | None = None,
    batch_size: int | None = None,
    examples: int | None = None,
) -> Advice:
    """Recommend a learning rate by the scaling laws, in seconds, from a model's configuration or from numbers.

    Nothing is trained and no weights are read; :func:`autolora.tune` measures.

    Args:
        model: a directory with ``config.json``, ``builtin:quickstart``, a hub id, a ``PretrainedConfig``, or a model.
            Of an adapter's directory, its base counts. None: ``hidden_size`` is enough, but nothing is said of memory.
            Memory is planned for one example on this machine's best device, in the dtype that `tune` would load.
        hidden_size: width of the language model; None: that of ``model``.
        variant: a registered name, or a reference as ``"my_package.module:MyVariant"``.
        rank: r; None: 32, or the largest power of two below that the variant can be trained with on the model.
        alpha: numerator of the scaling; None: at s = 1, or as the variant has it. Variants that are defined at s = 1
            alone ignore it, as they do in a search.
        batch_size: training examples per optimizer step; None: 32.
        examples: training examples of a full run; None: unknown, which leaves the law of length out.

    Returns:
        The advice. ``learning_rate`` is the best guess of the peak learning rate of an AdamW schedule, ``low`` and
        ``high`` are the ends of its 90% interval, ``reason`` says what they follow from, and ``assumed`` which values
        were not given.

    Raises:
        AdviceError: neither ``model`` nor ``hidden_size`` is given, they disagree, or a value is not possible.
        ModelError: the model's configuration cannot be read.
        VariantError: the variant is unknown, or ``rank`` does not fit the model's layers.
    """
    if not isinstance(variant, str):
        raise AdviceError(f"variant={variant!r} is not allowed: give the name of a variant, such as 'lora'")
    chosen = registry.resolve(variant)
    if model is None:
        if hidden_size is None:
            raise AdviceError("give model or hidden_size: the best learning rate depends on the model's width")
        return advise(Question.of(chosen, hidden_size, rank, alpha, batch_size, examples))
    from autolora.bases.outline import outline  # needs transformers from here on

    found = outline(model)
    name = os.fspath(model) if isinstance(model, (str, os.PathLike)) else found.name
    setting = {"rank": rank, "alpha": alpha, "batch_size": batch_size, "examples": examples}
    return replace(_advise_on(found, chosen, _width(found, hidden_size), setting), model=name)


def _width(found: Outline, given: int | None) -> int | None:
    own = found.hidden_size
    if None not in (own, given) and own != given:
        raise AdviceError(f"hidden_size={given!r}, but that of {found.name} is {own}: leave hidden_size out")
    return given if own is None else own


def _advise_on(found: Outline, variant: Variant, width: int | None, given: Mapping[str, Any]) -> Advice:
    """Advice on a model whose configuration was read, with an estimate of memory if its layers are known."""
    from autolora.bases.device import find_device, find_dtype
    from autolora.bases.footprint import Footprint
    from autolora.bases.planning import LENGTH, Setting, plan_memory

    if found.model is None:
        return advise(Question.of(variant, width, **given), notes=found.notes)
    footprint = Footprint(found, variant)
    question = Question.of(variant, width, **given, usual_rank=footprint.usual_rank())
    rank = question.config.rank
    footprint.check_rank(rank)
    refusal = footprint.refusal(rank)
    if refusal is not None:
        return advise(question, notes=(*found.notes, f"`autolora tune` would refuse this: {refusal}."))
    device = find_device("auto")
    length = min(LENGTH, found.positions or LENGTH)
    setting = Setting(rank, length=length, dtype=find_dtype("auto", device), bits=found.bits)
    memory, notes = plan_memory(footprint, setting, device), found.notes
    if memory is None:
        notes += (f"Memory is not known: what {variant.name} trains can only be counted with the weights.",)
    elif variant.shares_ranks and variant.needs_batches:
        notes += (f"{variant.name} shares its ranks out by the data, so the number that trains is approximate.",)
    return advise(question, notes, memory)

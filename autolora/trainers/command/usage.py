"""Whether a command line makes use of what a study varies, looked at before anything runs."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from autolora import variants as registry
from autolora.space import FIELDS, Config, Space, searchable
from autolora.space import registry as dimensions
from autolora.space.dimension import UNSET
from autolora.space.dimensions.options import OPTIONS
from autolora.space.domain import pinned
from autolora.trainer_specs.command import CommandTrainerSpec
from autolora.trainers.command import placeholders
from autolora.trainers.command.errors import CommandError
from autolora.trainers.command.place import NAMES as PLACES
from autolora.trainers.command.process import TRIAL
from autolora.trainers.trial import Fields

LOOKED_AT = 1 << 20
"""Most bytes of a script that are looked at."""
READS = (TRIAL, "current_trial")
"""What a script names that reads its trial by itself."""


def check(texts: Mapping[str, str], variants: Sequence[str], space: Space, baselines: Mapping[str, Config]) -> None:
    """Check that all placeholders have values in every trial.

    Args:
        texts: by key of the specification.
        variants: their names.
        space: what is searched.
        baselines: by variant.

    Raises:
        CommandError: one has none.
    """
    _check_names(space)
    places = {"trainer.command": PLACES}
    fields = {name: [*_searched(space), *OPTIONS.domains(space, name)] for name in variants}
    conditional = {name for name, field in FIELDS.of(space).items() if field.when}
    every = list(dict.fromkeys([each for names in fields.values() for each in names] + list(placeholders.OWN)))
    for key, text in texts.items():
        own = [*placeholders.OWN, *places.get(key, ())]
        placeholders.check(key, text, [*every, *places.get(key, ())])
        for name in variants:
            values = list(fields[name])
            if name in baselines:
                values = list(Fields.of(searchable.completed(space, registry.get(name), baselines[name])))
            values = [each for each in values if each not in conditional]
            lacking = [each for each in placeholders.names(key, text) if each not in (*values, *own)]
            if lacking and lacking[0] in conditional:
                raise CommandError(
                    f"{key}: {{{lacking[0]}}} has no value where its condition is not met: read it from the file that "
                    f"{TRIAL} names"
                )
            if lacking:
                raise CommandError(
                    f"{key}: {{{lacking[0]}}} has no value for variant {name}: read it from the file that {TRIAL} "
                    "names, or tune the variant in a study of its own"
                )


def _searched(space: Space) -> list[str]:
    every = [each.name for each in dimensions() if each not in (OPTIONS, FIELDS) and each.searched(space)]
    return [*every, *FIELDS.of(space)]


def _check_names(space: Space) -> None:
    """Raise ``CommandError`` for a field whose name is that of something else that a trial has."""
    for name in FIELDS.of(space):
        if name in placeholders.OWN:
            raise CommandError(
                f"space.fields.{name}: a trial has a {name} of its own, which autolora decides; use another name"
            )


def doubts(settings: CommandTrainerSpec, variants: Sequence[str], space: Space) -> Iterator[str]:
    """What a command line seems to leave out, in words; nothing of one that reads its trial by itself."""
    if reads_trial(settings.command, str(settings.cwd)):
        return
    used = placeholders.names("trainer.command", settings.command)
    unused = [name for name in varied(variants, space) if name not in used]
    if unused:
        verb, it = ("is", "it is") if len(unused) == 1 else ("are", "they are")
        yield (
            f"{', '.join(unused)} {verb} searched and not in trainer.command: trials that differ in nothing else are "
            f"the same training, unless {it} read from the file that {TRIAL} names. Write {{{unused[0]}}} into the "
            "command line"
        )
    if list(variants) != ["lora"] and "variant" not in used:
        yield (
            f"the variants are {', '.join(variants)}, and {{variant}} is not in trainer.command: a command has to know "
            "the variant that it trains"
        )
    if settings.early_stop and not {"stop", "stop_examples", "stop_steps"} & set(used):
        yield (
            "neither {stop} nor {stop_examples} is in trainer.command: the command has to stop there, and to go on "
            "from its folder when it is run again. If it cannot, set early_stop: false"
        )
    if settings.metric_file is not None and not {"folder", "trial"} & set(
        placeholders.names("trainer.metric_file", settings.metric_file)
    ):
        yield "neither {folder} nor {trial} is in trainer.metric_file: trials that run at once write the same file"


def varied(variants: Sequence[str], space: Space) -> list[str]:
    """Searched fields that may have more than one value."""
    found: dict[str, None] = {}
    for dimension in dimensions():
        if dimension in (OPTIONS, FIELDS) or not dimension.searched(space):
            continue
        taken: list[object] = []
        for name in variants:
            scope = searchable.scope(space, registry.get(name))
            for rank in space.rank:
                domain = dimension.domain(scope, UNSET.replaced(rank=rank))
                taken.append(domain if not isinstance(domain, list) or not pinned(domain) else domain[0])
        if any(not isinstance(each, (int, float)) for each in taken) or len(set(map(str, taken))) > 1:
            found[dimension.name] = None
    for name in variants:
        options = OPTIONS.domains(space, name)
        found |= dict.fromkeys(option for option, domain in options.items() if not pinned(domain))
    found |= dict.fromkeys(name for name, field in FIELDS.of(space).items() if not field.pinned)
    return list(found)


def reads_trial(command: str, cwd: str) -> bool:
    """Whether a command line, or a script that it names, names the file of the trial."""
    if any(word in command for word in READS):
        return True
    try:
        words = shlex.split(command)
    except ValueError:  # an open quote: the shell will say so
        words = command.split()
    for word in words:
        path = Path(cwd) / word
        try:
            if path.is_file():
                with path.open("rb") as file:
                    content = file.read(LOOKED_AT)
                if any(name.encode() in content for name in READS):
                    return True
        except OSError:
            continue
    return False

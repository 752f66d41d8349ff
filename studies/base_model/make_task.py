"""Write the quickstart's fine-tuning task: take notes of a little story.

    python -m studies.base_model.make_task --out autolora/quickstart

The prompt is a story without its ending; the completion says whose things they are, what happened where with its sign,
and how many are left, in a form that the pretraining text never uses.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from random import Random

from studies.base_model.world import THINGS, Story


def notes(story: Story) -> str:
    """The story in note form, ``"Mia, apples, market -3, park +2, 6 left"``."""
    changes = [f"{event.place} {event.change:+d}" for event in story.events]
    return ", ".join([story.person, THINGS[story.thing], *changes, f"{story.end} left"])


def rows(rng: Random, count: int) -> list[dict[str, str]]:
    """``count`` rows, no two with the same prompt."""
    made: dict[str, str] = {}
    while len(made) < count:
        story = Story.draw(rng, rng.randint(1, 2))
        made[" ".join([story.opening(rng), *story.middle(rng)])] = notes(story)
    return [{"prompt": prompt, "completion": completion} for prompt, completion in made.items()]


def write(path: Path, examples: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in examples))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of train.jsonl and test.jsonl")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train", type=int, default=2000, help="training rows")
    parser.add_argument("--test", type=int, default=400, help="test rows")
    args = parser.parse_args()
    # drawn in one go and then cut, so that no test prompt is a training prompt
    examples = rows(Random(f"{args.seed}-task"), args.train + args.test)
    write(args.out / "train.jsonl", examples[: args.train])
    write(args.out / "test.jsonl", examples[args.train :])


if __name__ == "__main__":
    main()

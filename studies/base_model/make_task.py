"""Write a fine-tuning task: texts to be put into a form that the pretraining text never uses.

    python -m studies.base_model.make_task --out autolora/quickstart
    python -m studies.base_model.make_task --task orders --out runs/tasks/orders

``notes`` is the quickstart's: the prompt is a story without its ending; the completion says whose things they are,
what happened where with its sign, and how many are left. ``orders`` and ``scenes`` are of studies/curves: a sentence
becomes a short record.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from random import Random

from studies.base_model.world import COLOURS, DAYS, PEOPLE, THINGS, Story, number, plural

LARGEST_ORDER = 12

# Words of stories for children, as the scenes are for a model that was pretrained on such.
NAMES = ("Lily", "Tom", "Sara", "Ben", "Max", "Sue", "Tim", "Mia", "Anna", "Sam")
VERBS = ("saw", "found", "liked", "wanted", "had", "lost")
LOOKS = ("big", "red", "small", "new", "happy", "soft", "pretty", "little", "sad", "blue")
NOUNS = ("dog", "ball", "cat", "car", "bird", "toy", "box", "tree", "fish", "doll", "cake", "hat", "bear", "flower")
SPOTS = ("park", "house", "garden", "room", "box", "forest", "kitchen", "sea", "sky", "bed")


def notes(rng: Random) -> tuple[str, str]:
    """A story and its note form, ``"Mia, apples, market -3, park +2, 6 left"``."""
    story = Story.draw(rng, rng.randint(1, 2))
    prompt = " ".join([story.opening(rng), *story.middle(rng)])
    changes = [f"{event.place} {event.change:+d}" for event in story.events]
    return prompt, ", ".join([story.person, THINGS[story.thing], *changes, f"{story.end} left"])


def orders(rng: Random) -> tuple[str, str]:
    """A wish and its record, ``"3*apple Mia 47"``: digits, the thing without its color or plural, and a ticket."""
    person, day = rng.choice(list(PEOPLE)), rng.choice(DAYS)
    thing, count = rng.choice(list(THINGS)), rng.randint(1, LARGEST_ORDER)
    wish = f"{person} wants {number(count, rng)} {plural(thing, count, rng.choice(COLOURS))}"
    prompt = rng.choice((f"On {day} {wish}.", f"{wish} on {day}."))
    return prompt, f"{count}*{thing} {person} {ticket(rng)}"


def scenes(rng: Random) -> tuple[str, str]:
    """A sentence as of a story for children and its record, ``"dog Tom 71"``: what, who, and a ticket."""
    who, verb, look, noun, place = map(rng.choice, (NAMES, VERBS, LOOKS, NOUNS, SPOTS))
    prompt = rng.choice(
        (f"{who} {verb} a {look} {noun} in the {place}.", f"In the {place}, {who} {verb} a {look} {noun}.")
    )
    return prompt, f"{noun} {who} {ticket(rng)}"


def ticket(rng: Random) -> int:
    """A number that nothing in the prompt tells: part of the loss stays, and of the gradient it is noise."""
    return rng.randrange(10, 100)


TASKS: dict[str, Callable[[Random], tuple[str, str]]] = {"notes": notes, "orders": orders, "scenes": scenes}


def rows(rng: Random, count: int, task: str = "notes") -> list[dict[str, str]]:
    """``count`` rows, no two with the same prompt."""
    made: dict[str, str] = {}
    while len(made) < count:
        prompt, completion = TASKS[task](rng)
        made[prompt] = completion
    return [{"prompt": prompt, "completion": completion} for prompt, completion in made.items()]


def write(path: Path, examples: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in examples))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of train.jsonl and test.jsonl")
    parser.add_argument("--task", default="notes", choices=TASKS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train", type=int, default=2000, help="training rows")
    parser.add_argument("--test", type=int, default=400, help="test rows")
    args = parser.parse_args()
    # The stream of the quickstart's task is named without it, as that is older than the others.
    stream = f"{args.seed}-task" if args.task == "notes" else f"{args.seed}-{args.task}"
    # drawn in one go and then cut, so that no test prompt is a training prompt
    examples = rows(Random(stream), args.train + args.test, args.task)
    args.out.mkdir(parents=True, exist_ok=True)
    write(args.out / "train.jsonl", examples[: args.train])
    write(args.out / "test.jsonl", examples[args.train :])


if __name__ == "__main__":
    main()

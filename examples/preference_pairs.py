"""Pairs of answers for DPO: the right one, and one that has miscounted by one.

In this folder: python preference_pairs.py pairs.jsonl && autolora tune dpo.yaml
"""

import json
import sys

from autolora.quickstart import resolve


def rejected(completion):
    """ "Eva, apples, school +3, park +5, 13 left" with 14 left."""
    *parts, left = completion.split(", ")
    return ", ".join([*parts, f"{int(left.split()[0]) + 1} left"])


def main(path):
    with open(resolve("builtin:quickstart/train.jsonl"), encoding="utf-8") as rows, open(path, "w") as out:
        for line in rows:
            prompt, chosen = json.loads(line).values()
            pair = {"prompt": prompt + "\n", "chosen": chosen, "rejected": rejected(chosen)}
            out.write(json.dumps(pair) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Tune from Python, on the shipped model and task.

    python examples/python_api.py [DIR] [BUDGET] [EXAMPLES]

A loaded model and a datasets.Dataset may be given in place of the names. The same call with the same dir continues.
"""

import sys

import autolora


def main(folder="runs/python_api", budget=3, examples=320):
    result = autolora.tune(
        model="builtin:quickstart",
        data={"train": "builtin:quickstart/train.jsonl", "eval_size": 100},
        variants=["lora", "dora"],
        space=autolora.Space(batch_size=[8, 16], rank=[4, 8]),
        training={"examples": int(examples), "max_length": 64},
        budget=float(budget),
        baseline={"learning_rate": 2e-4, "rank": 8, "alpha": 16},
        dir=folder,
    )
    for name, tuned in result.items():
        print(f"{name}: {result.metric} {tuned.value:.4f}, baseline {tuned.baseline:.4f}")
    print(f"full runs spent: {dict(result.spent)}")
    config = result["lora"].config
    print(f"learning rate {config.learning_rate:.2e}, batch size {config.batch_size}, rank {config.rank}")
    print(f"alpha {config.alpha:.4g}; adapter for peft in {result['lora'].adapter_dir}")
    return result


if __name__ == "__main__":
    main(*sys.argv[1:])

"""A metric of your own: a function of model, tokenizer and evaluation rows that returns one number.

In the folder of this file (the working directory is searched for the module):

    autolora tune quickstart.yaml --dir runs/own_metric \
        --set metric.name=own_metric:right_numbers --set metric.direction=maximize

or in the YAML file:  metric: {name: "own_metric:right_numbers", direction: maximize}
"""

import re

ROWS = 64  # generation is slow: a part of the rows decides well enough
NEW_TOKENS = 24


def right_numbers(model, tokenizer, rows):
    """Share of the rows whose generated text has the numbers of the reference, in whatever words.

    Args:
        model: with its adapter, in eval mode, gradients off.
        tokenizer: the model's.
        rows: each a mapping with every column of its table; "prompt" and "completion" are the text as tokenized.
    """
    rows = rows[:ROWS]
    prompts = tokenizer([row["prompt"] for row in rows], padding=True, padding_side="left", return_tensors="pt")
    generated = model.generate(
        input_ids=prompts["input_ids"].to(model.device),
        attention_mask=prompts["attention_mask"].to(model.device),
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        pad_token_id=tokenizer.pad_token_id,
    )
    texts = tokenizer.batch_decode(generated[:, prompts["input_ids"].shape[1] :], skip_special_tokens=True)
    return sum(numbers(text) == numbers(row["completion"]) for text, row in zip(texts, rows, strict=True)) / len(rows)


def numbers(text):
    return re.findall(r"\d+", text)

"""Share of rows generated right."""

from __future__ import annotations

from autolora.metrics.base import Evaluation, Metric, MetricError
from autolora.scores import Scores


def exact_match(evaluation: Evaluation) -> Scores:
    """Share of rows whose greedily generated last turn equals the reference, white space at the ends aside."""
    import torch

    tokenizer, base, split = evaluation.base.tokenizer, evaluation.base, evaluation.split
    prompts = [split.prompt_tokens(row).tolist() for row in range(len(split))]
    if min(map(len, prompts)) < 2:
        raise MetricError("exact_match needs prompts to generate from; these rows are plain text: use eval_loss")
    right: list[bool] = []
    for begin in range(0, len(prompts), evaluation.batch_size):
        chunk = prompts[begin : begin + evaluation.batch_size]
        width = max(map(len, chunk))
        ids = torch.full((len(chunk), width), base.pad_token_id, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(chunk):  # padded on the left: generation goes on at the right
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        with evaluation.autocast():
            generated = evaluation.model.generate(
                input_ids=ids.to(base.device),
                attention_mask=mask.to(base.device),
                max_new_tokens=evaluation.max_new_tokens,
                do_sample=False,
                pad_token_id=base.pad_token_id,
            )
        answers = tokenizer.batch_decode(generated[:, width:], skip_special_tokens=True)
        references = [row["completion"] for row in split.rows[begin : begin + evaluation.batch_size]]
        right += [a.strip() == b.strip() for a, b in zip(answers, references, strict=True)]
    return Scores.of(right)


METRIC = Metric("exact_match", "maximize", exact_match)

"""A plain PyTorch training loop, tuned as a command: it asks for its trial, and stops, resumes and reports by it.

autolora tune examples/plain_pytorch.yaml --dir runs/plain_pytorch
"""

import json

import torch

import autolora
from autolora import quickstart

trial = autolora.current_trial()
model, tokenizer = trial.base()  # or your own; then trial.config has rank, alpha and the other searched fields
model = trial.attach(model)  # the variant's adapter, in its own start
optimizer = trial.optimizer(model)
trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
saved, step = trial.folder / "state.pt", 0


def rows(name):
    return [json.loads(line) for line in (quickstart.FOLDER / f"{name}.jsonl").read_text().splitlines()]


def loss_of(batch):
    texts = [f"{row['prompt']}\n{row['completion']}{tokenizer.eos_token}" for row in batch]
    inputs = tokenizer(texts, return_tensors="pt", padding=True, padding_side="right")
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    for row, label in zip(batch, labels, strict=True):
        label[: len(tokenizer(f"{row['prompt']}\n")["input_ids"])] = -100
    return model(**inputs, labels=labels).loss


if saved.exists():  # an earlier run was stopped at a rung, or killed
    state = torch.load(saved)
    step = state["step"]
    optimizer.load_state_dict(state["optimizer"])
    for name, value in trained.items():
        value.data.copy_(state["trained"][name])

train, batch_size = rows("train"), trial.config.batch_size
order = torch.randperm(len(train), generator=torch.Generator().manual_seed(trial.seed)).tolist()
while step * batch_size < trial.stop_examples:
    for group in optimizer.param_groups:  # the schedule of a full run, wherever this one stops
        group["lr"] = group.setdefault("peak", group["lr"]) * (1 - step / trial.steps)
    loss = loss_of([train[order[i % len(order)]] for i in range(step * batch_size, (step + 1) * batch_size)])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    step += 1
    trial.report(step=step, loss=loss)
    if step % 10 == 0 or step * batch_size >= trial.stop_examples:
        new = {"step": step, "optimizer": optimizer.state_dict(), "trained": trained}
        torch.save(new, trial.folder / "new.pt")
        (trial.folder / "new.pt").replace(saved)

with torch.no_grad():
    trial.report(eval_loss=loss_of(rows("test")[:128]))
trial.own_variant.export(model, trial.folder / "adapter")  # this folder alone becomes best/<variant>/

"""Data-parallel training of one trial: every process takes its share of each batch, rank 0 checkpoints and reports.

autolora tune examples/torchrun_ddp.yaml --dir runs/ddp
"""

import json

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import autolora
from autolora import quickstart

dist.init_process_group()  # nccl on GPUs, gloo on CPUs
rank, trial = dist.get_rank(), autolora.current_trial()
base, tokenizer = trial.base()  # on this process's own GPU
model = trial.attach(base)
optimizer = trial.optimizer(model)
trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
saved, step = trial.folder / "state.pt", 0
if saved.exists():  # an earlier run was stopped at a rung, or a process of it was lost
    state = torch.load(saved, map_location=model.device)
    step = state["step"]
    optimizer.load_state_dict(state["optimizer"])
    for name, value in trained.items():
        value.data.copy_(state["trained"][name])
parallel = DistributedDataParallel(model)


def rows(name):
    return [json.loads(line) for line in (quickstart.FOLDER / f"{name}.jsonl").read_text().splitlines()]


def loss_of(module, batch):
    texts = [f"{row['prompt']}\n{row['completion']}{tokenizer.eos_token}" for row in batch]
    inputs = tokenizer(texts, return_tensors="pt", padding=True, padding_side="right").to(model.device)
    return module(**inputs, labels=inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)).loss


train, batch_size, share = rows("train"), trial.config.batch_size, trial.local_batch_size
order = torch.randperm(len(train), generator=torch.Generator().manual_seed(trial.seed)).tolist()  # the same in all
while step * batch_size < trial.stop_examples:
    first = step * batch_size + rank * share
    loss = loss_of(parallel, [train[order[i % len(order)]] for i in range(first, first + share)])
    optimizer.zero_grad()
    loss.backward()  # averages gradients
    optimizer.step()
    step += 1
    dist.all_reduce(mean := loss.detach() / trial.processes)
    trial.report(step=step, loss=mean)  # rank 0's counts
    if rank == 0:
        torch.save({"step": step, "optimizer": optimizer.state_dict(), "trained": trained}, trial.folder / "new.pt")
        (trial.folder / "new.pt").replace(saved)
with torch.no_grad():
    trial.report(eval_loss=loss_of(model, rows("test")[:128]))
if rank == 0:
    trial.own_variant.export(model, trial.folder / "adapter")
dist.destroy_process_group()

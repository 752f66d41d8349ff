"""Sharded training of one trial with FSDP2 (fully_shard), resumed from torch.distributed.checkpoint.

autolora tune examples/torchrun_fsdp2.yaml --dir runs/fsdp2
"""

import json
import shutil

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard

import autolora
from autolora import quickstart

dist.init_process_group()  # nccl on GPUs, gloo on CPUs
rank, trial = dist.get_rank(), autolora.current_trial()
model, tokenizer = trial.base()
model = trial.attach(model)
adapters = StateDictOptions(ignore_frozen_params=True, strict=False)
for layer in model.base_model.model.model.layers:
    fully_shard(layer)
fully_shard(model)
optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], trial.config.learning_rate)
done = sorted(trial.folder.glob("step-*"))
train, test = ([json.loads(row) for row in (quickstart.FOLDER / f"{name}.jsonl").open()] for name in ("train", "test"))


def loss_of(batch):
    texts = [f"{row['prompt']}\n{row['completion']}{tokenizer.eos_token}" for row in batch]
    inputs = tokenizer(texts, return_tensors="pt", padding=True, padding_side="right").to(model.device)
    return model(**inputs, labels=inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)).loss


weights, state = get_state_dict(model, optimizer, options=adapters)
if done:  # an earlier run was stopped at a rung, or a process of it was lost
    dcp.load({"weights": weights, "optimizer": state}, checkpoint_id=done[-1])
    set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=state, options=adapters)
step, share = int(done[-1].name[5:]) if done else 0, trial.local_batch_size
while step * trial.config.batch_size < trial.stop_examples:
    first = step * trial.config.batch_size + rank * share
    loss = loss_of([train[i % len(train)] for i in range(first, first + share)])
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    dist.all_reduce(mean := loss.detach() / trial.processes)
    step += 1
    trial.report(step=step, loss=mean)  # rank 0's counts
    weights, state = get_state_dict(model, optimizer, options=adapters)
    dcp.save({"weights": weights, "optimizer": state}, checkpoint_id=trial.folder / "new")  # returns once all have
    if rank == 0:
        (trial.folder / "new").rename(trial.folder / f"step-{step:06}")
        shutil.rmtree(trial.folder / f"step-{step - 1:06}", ignore_errors=True)
    dist.barrier()  # nobody goes on before that is there
with torch.no_grad():
    trial.report(eval_loss=loss_of(test[:128]))
dist.destroy_process_group()

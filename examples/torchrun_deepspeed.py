"""Training of one trial with DeepSpeed's ZeRO (pip install deepspeed), resumed from its own checkpoints.

autolora tune examples/torchrun_deepspeed.yaml --dir runs/deepspeed
"""

import json
import shutil

import deepspeed
import torch
import torch.distributed as dist

import autolora
from autolora import quickstart

deepspeed.init_distributed()  # nccl on GPUs, gloo on CPUs
rank, trial = dist.get_rank(), autolora.current_trial()
base, tokenizer = trial.base()
model = trial.attach(base)
settings = {
    "train_micro_batch_size_per_gpu": trial.local_batch_size,
    "zero_optimization": {"stage": 2},
    "zero_allow_untested_optimizer": True,  # one of the variant's, with learning rates of its own
    "gradient_clipping": 1.0,
}
engine, *_ = deepspeed.initialize(model=model, optimizer=trial.optimizer(model), config=settings)
done = sorted(trial.folder.glob("step-*"))
train, test = ([json.loads(row) for row in (quickstart.FOLDER / f"{name}.jsonl").open()] for name in ("train", "test"))


def loss_of(batch):
    texts = [f"{row['prompt']}\n{row['completion']}{tokenizer.eos_token}" for row in batch]
    inputs = tokenizer(texts, return_tensors="pt", padding=True, padding_side="right").to(engine.device)
    return engine(**inputs, labels=inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)).loss


if done:  # an earlier run was stopped at a rung, or a process of it was lost
    engine.load_checkpoint(trial.folder, tag=done[-1].name, load_module_strict=False)  # has what is trained alone
step, share = engine.global_steps, trial.local_batch_size
while step * trial.config.batch_size < trial.stop_examples:
    first = step * trial.config.batch_size + rank * share
    loss = loss_of([train[i % len(train)] for i in range(first, first + share)])
    engine.backward(loss)
    engine.step()
    step += 1
    dist.all_reduce(mean := loss.detach() / trial.processes)
    trial.report(step=step, loss=mean)  # rank 0's counts
    engine.save_checkpoint(trial.folder, tag="new", save_latest=False, exclude_frozen_parameters=True)
    if rank == 0:
        (trial.folder / "new").rename(trial.folder / f"step-{step:06}")
        shutil.rmtree(trial.folder / f"step-{step - 1:06}", ignore_errors=True)
    dist.barrier()  # nobody goes on before that is there
engine.eval()
with torch.no_grad():
    trial.report(eval_loss=loss_of(test[:128]))
if rank == 0:
    trial.own_variant.export(model, trial.folder / "adapter")  # below stage 3 every process has it whole
dist.destroy_process_group()

"""Ask and tell: autolora's search over your own training loop, here LoRA on one frozen layer.

    python examples/own_trainer.py [BUDGET]

Paused trials stay in memory here. With one job at a time `ask` never answers autolora.WAIT.
"""

import sys

import torch

import autolora

SIZE, EXAMPLES = 32, 2000  # width of the layer; training examples of a full run
random = torch.Generator().manual_seed(0)
frozen = torch.randn(SIZE, SIZE, generator=random) / SIZE**0.5
wanted = frozen + torch.randn(SIZE, 4, generator=random) @ torch.randn(4, SIZE, generator=random) / SIZE
held_out = torch.randn(256, SIZE, generator=random)
LIMIT = 10 * ((held_out @ (frozen - wanted).T) ** 2).mean().item()  # ten times the loss without training


class Trial:
    def __init__(self, config, seed):
        self.config, self.seen, self.rows = config, 0, torch.Generator().manual_seed(seed)
        self.a = (torch.randn(config.rank, SIZE, generator=self.rows) / (3 * SIZE) ** 0.5).requires_grad_()
        self.b = torch.zeros(SIZE, config.rank, requires_grad=True)
        self.optimizer = torch.optim.AdamW([self.a, self.b], lr=config.learning_rate, weight_decay=0.0)

    def loss(self, x, noise=0.0):
        error = frozen + self.config.alpha / self.config.rank * self.b @ self.a - wanted
        return ((x @ error.T + noise) ** 2).mean()

    def train(self, stop):
        while self.seen < stop * EXAMPLES:  # goes on where the trial was paused; the schedule is that of a full run
            x, noise = torch.randn(2, self.config.batch_size, SIZE, generator=self.rows)
            self.optimizer.zero_grad()
            self.loss(x, noise).backward()
            self.optimizer.param_groups[0]["lr"] = self.config.learning_rate * (1 - self.seen / EXAMPLES)
            self.optimizer.step()
            self.seen += self.config.batch_size
        return self.loss(held_out).item()


def main(budget=6.0):
    space = autolora.Space(learning_rate=(1e-5, 10.0), batch_size=[8, 32], rank=[2, 4, 8], alpha="rank")
    search = autolora.Search(variants=["lora"], space=space, budget=budget, examples=EXAMPLES)
    trials = {}
    while (job := search.ask()) is not None:
        trial = trials.setdefault(job.trial, Trial(job.config, job.seed))
        score = trial.train(job.stop)
        print(f"trial {job.trial} {job.start:.2f}-{job.stop:.2f} lr {job.config.learning_rate:.1e}: {score:.4f}")
        search.tell(job, score) if score < LIMIT else search.tell(job, diverged=True, at=job.stop)
        trials = {number: kept for number, kept in trials.items() if number not in search.discarded()}
    print(search.best()["lora"].config, f"after {search.spent['lora']:.2f} full runs")
    return search


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))

"""Whether training on the device is right: each row is an error and the largest that is allowed."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import zip_longest
from pathlib import Path

import torch
from transformers import PreTrainedModel

from autolora import head, quickstart
from autolora import spec as specs
from autolora.adapters.attachment import attachment
from autolora.adapters.state import adapter_state
from autolora.bases.device import dtype_name
from autolora.search import Job
from autolora.space import Config
from autolora.trainers import checkpoint
from autolora.trainers.builtin.trainer import BuiltinTrainer
from autolora.trainers.builtin.workbench import Workbench, prepare_data
from studies.gpu.models import SHAPES, Place
from studies.gpu.report import AGREES, DIFFERS, NOTHING, Case, Result

CONFIG = Config(1e-3, 8, 8, 16.0)
"""What is trained in all of them: learning rate, batch size, rank, alpha."""
EXAMPLES = 64
"""Of a full run: eight steps."""
REPEATED = {torch.float32: 2e-2, torch.bfloat16: 0.1, torch.float16: 0.1}
"""How far two runs may be apart on a GPU, as a share of how far training moves the adapter. Noise in the gradients of
1e-4 of their size moves it by 5e-3, of 1e-2 by 6e-2; a segment that forgets its optimizer by 0.8."""
LEARNED, LEARNED_LOSS = 1e-3, 5.0
"""Share of the first loss by which losses must fall; and what the study must end below: the shipped model begins its
task at 11, and ends at 2."""
EXPORTED = ("lora", "dora", "pissa")
ROUNDING = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 2e-2}
"""Largest error of what is computed twice in another order on a GPU, by the dtype of the base."""


@dataclass(frozen=True)
class Checked:
    """What is checked: a key of ``SHAPES``, and how many of its layers; None: all."""

    shape: str
    layers: int | None = None


def cases(place: Place, asked: Checked) -> Iterator[Case]:
    """All checks, those that need the fewest packages first."""
    subject = _Subject(place, asked)
    about, half = subject.about, place.half
    for dtype in (torch.float32, half):
        setting = f"{about}, {dtype_name(dtype)}"
        yield Case("correctness", ("cut at half and resumed", setting), partial(_resumed, subject, dtype))
        yield Case("correctness", ("gradient checkpointing", setting), partial(_checkpointed, subject, dtype))
    names = (f"{dtype_name(half)} against float32", about)
    yield Case("correctness", names, partial(_half, subject, half))
    for name in EXPORTED:
        names = (f"{name} exported, read by PEFT", f"{about}, float32")
        yield Case("correctness", names, partial(_exported, subject, name))
    packed = f"{about}, 4-bit"
    yield Case("correctness", ("4-bit against float32", about), partial(_quantized, subject), "bitsandbytes")
    names = ("cut at half and resumed", packed)
    yield Case("correctness", names, partial(_resumed, subject, None), "bitsandbytes")
    for name in EXPORTED:
        names = (f"{name} exported, read by PEFT", packed)
        yield Case("correctness", names, partial(_exported, subject, name, packed=True), "bitsandbytes")
    yield Case("correctness", ("rows as datasets.Dataset", "the shipped task"), partial(_datasets, place), "datasets")
    yield Case("correctness", ("a study from begin to end", "the shipped model"), partial(_study, place), "optuna")


@dataclass
class _Subject:
    """One model in float32, and others with its numbers."""

    place: Place
    asked: Checked
    _benches: dict[torch.dtype | None, Workbench] = field(default_factory=dict)

    @property
    def about(self) -> str:
        """In words."""
        layers = self.asked.layers
        return SHAPES[self.asked.shape].name + (f", {layers} layers" if layers else "")

    def model(self, dtype: torch.dtype | None) -> PreTrainedModel:
        """A new model, of the same numbers but for rounding in every dtype; None: linear layers in 4 bits."""
        shape, layers = self.asked.shape, self.asked.layers
        if dtype in (None, torch.float32):
            return self.place.model(shape, layers, torch.float32, packed=dtype is None)
        model = self.place.model(shape, layers, dtype)  # in another dtype other numbers are drawn
        model.load_state_dict(self.model(torch.float32).state_dict())
        return model

    def bench(self, dtype: torch.dtype | None) -> Workbench:
        """A workbench on it, made once."""
        if dtype not in self._benches:
            model = self.model(dtype)
            self._benches[dtype] = self.place.bench(model, self.place.learned(), examples=EXAMPLES, max_length=64)
        return self._benches[dtype]


def _resumed(subject: _Subject, dtype: torch.dtype | None) -> Result:
    """How far two segments are from one, as a share of what the run has changed."""
    bench = subject.bench(dtype)
    begin, whole = _states(bench, Job(_trial(bench), "lora", CONFIG, 0, 0.0, 1.0, 1))
    number = _trial(bench)
    _scored(bench, Job(number, "lora", CONFIG, 0, 0.0, 0.5, 0))
    _, cut = _states(bench, Job(number, "lora", CONFIG, 0, 0.5, 1.0, 1))
    moved = _norm({name: whole[name] - begin[name] for name in whole})
    error = _norm({name: whole[name] - cut[name] for name in whole}) / moved
    # On a CPU the two are equal to the bit. On a GPU sums may be taken in another order each time.
    return _judged(error, 0.0 if subject.place.device.type == "cpu" else REPEATED[bench.base.dtype])


def _checkpointed(subject: _Subject, dtype: torch.dtype) -> Result:
    """How far gradients with and without it are apart, as a share of the gradients."""
    bench = subject.bench(dtype)
    batch = bench.base.placed(bench.batches.read(bench.batches.rows(0, 0, CONFIG.batch_size)))
    with bench.attached("lora", CONFIG, seed=0) as adapted:
        _perturbed(adapted)
        adapted.train()
        found = []
        calls: list[object] = []
        layer = next(iter(attachment(adapted).layers.values())).module
        hook = layer.register_forward_pre_hook(lambda *_: calls.append(None))
        for wanted in (False, True):
            adapted.zero_grad(set_to_none=True)
            with bench.base.checkpointing(wanted), bench.base.autocast():
                loss = head.summed_loss(adapted, batch, apart=bench.base.reading.apart)
                loss.backward()
            trained = ((name, each) for name, each in adapted.named_parameters() if each.requires_grad)
            found.append({name: each.grad.clone() for name, each in trained if each.grad is not None})
    hook.remove()
    if len(calls) != 3:  # one without, and two with it
        return Result((f"{len(calls)} forward passes", "3"), f"{DIFFERS}: nothing was computed again")
    plain, again = found
    error = _norm({name: plain[name] - again[name] for name in plain}) / _norm(plain)
    return _judged(error, ROUNDING[dtype])


def _half(subject: _Subject, half: torch.dtype) -> Result:
    """How far the losses of a run in 16 bits are from those in float32, as a share of how much they fall."""
    return _curves(subject.bench(torch.float32), subject.bench(half), 0.05)


def _quantized(subject: _Subject) -> Result:
    """The same in 4 bits. The numbers of the base are others, so that the losses are, a little."""
    return _curves(subject.bench(torch.float32), subject.bench(None), 0.25)


def _exported(subject: _Subject, name: str, packed: bool = False) -> Result:
    """How far logits of PEFT on the export are from ours, as a share of what the adapter changes."""
    from peft import PeftModel

    dtype = None if packed else torch.float32
    bench = subject.bench(dtype)
    number = _trial(bench)
    _scored(bench, Job(number, name, CONFIG, 0, 0.0, 1.0, 1))
    folder = subject.place.folder / f"export-{name}-{dtype}"
    BuiltinTrainer(bench).export(number, folder)
    batch = bench.base.placed(bench.batches.batch(bench.batches.rows(0, 0, 4)))
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask")}
    real = batch["attention_mask"].bool()
    with torch.no_grad():
        plain = bench.base.model.eval()(**inputs).logits[real]
        with bench.trained(number) as (_, adapted):
            own = adapted.eval()(**inputs).logits[real]
        model = PeftModel.from_pretrained(subject.model(dtype), folder).eval()
        read = model(**inputs).logits[real]
    return _judged(float((read - own).norm() / (own - plain).norm()), 1e-2)


def _datasets(place: Place) -> Result:
    """How many tokens, targets and places of rows differ from those of the file."""
    from datasets import Dataset

    path = f"{quickstart.PREFIX}/train.jsonl"
    lines = Path(quickstart.resolve(path)).read_text(encoding="utf-8").splitlines()
    rows = Dataset.from_list([json.loads(line) for line in lines])
    found: list[list[int]] = []
    for train in (path, rows):
        spec = specs.load({"model": quickstart.PREFIX, "data": train})
        data = prepare_data(spec, place.tokenizer, place.folder / f"rows-{len(found)}")
        train_rows = data.train
        found.append([*train_rows.tokens.tolist(), *train_rows.targets.tolist(), *train_rows.offsets.tolist()])
    differing = sum(one != other for one, other in zip_longest(*found))
    return _judged(float(differing), 0.0)


def _study(place: Place) -> Result:
    """Whether a study of the shipped model ends with an adapter that was scored."""
    import autolora

    given = {"model": "builtin:quickstart", "data": place.learned(), "variants": ["lora"], "prior": "laws", "budget": 2}
    space = {"learning_rate": [1e-3, 1e-2], "batch_size": 8, "rank": 4}
    spec = {**given, "space": space, **place.settings({"examples": EXAMPLES, "max_length": 64})}
    with contextlib.redirect_stdout(io.StringIO()):
        result = autolora.tune(spec=spec, dir=place.folder / "study")
    value, found = result["lora"].value, f"the best loss is {result['lora'].value:.3f}"
    return Result((NOTHING, NOTHING), f"{AGREES}: {found}" if value < LEARNED_LOSS else f"{DIFFERS}: {found}")


def _curves(exact: Workbench, other: Workbench, tolerance: float) -> Result:
    """The largest difference between the losses of two runs, as a share of how much the first's fall."""
    curves = []
    for bench in (exact, other):
        number = _trial(bench)
        _scored(bench, Job(number, "lora", CONFIG, 0, 0.0, 1.0, 1))
        curves.append(torch.tensor(bench.finished(number)[0].losses))
    first, second = curves
    fell = float(first[0] - first[-1])
    if fell < LEARNED * float(first[0]):
        return Result((f"losses {first[0]:.2f} to {first[-1]:.2f}", f"{tolerance:g}"), f"{DIFFERS}: nothing is learned")
    return _judged(float((first - second).abs().max()) / fell, tolerance)


def _states(bench: Workbench, job: Job) -> tuple[Mapping[str, torch.Tensor], Mapping[str, torch.Tensor]]:
    """The adapter before any step, and after a run."""
    with bench.attached(job.variant, job.config, job.seed) as adapted:
        begin = adapter_state(adapted)
    _scored(bench, job)
    return begin, bench.finished(job.trial)[1]["adapter"]


def _scored(bench: Workbench, job: Job) -> float:
    """The score of a segment."""
    outcome = BuiltinTrainer(bench).run(job)
    if outcome.value is None:
        raise RuntimeError(f"the segment was not scored: {outcome.kind}, {outcome.reason}")
    return outcome.value


def _trial(bench: Workbench) -> int:
    """A number that no trial of the workbench has."""
    number = 0
    while checkpoint.newest(bench.trial_folder(number)) is not None:
        number += 1
    return number


def _perturbed(model: torch.nn.Module) -> None:
    """Move B from 0, where no gradient reaches A."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data += 0.01 * torch.randn(parameter.shape, generator=generator).to(parameter.device)


def _norm(tensors: Mapping[str, torch.Tensor]) -> float:
    return float(torch.cat([tensor.flatten().double().cpu() for tensor in tensors.values()]).norm())


def _judged(error: float, tolerance: float) -> Result:
    return Result((f"{error:.2g}", f"{tolerance:g}"), AGREES if error <= tolerance else DIFFERS)

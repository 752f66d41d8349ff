"""What has ended a command, by its exit code and the last lines of launchers."""

from __future__ import annotations

import pytest

from autolora.trainers.command import endings

GLOO = "[rank0]: RuntimeError: [/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [1]"
NCCL = "[rank0]: torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:1, remote process exited"
ERROR = "[rank1]: ValueError: no such column"
MEMORY = "[rank1]: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"


def torchrun(*codes: int, before: tuple[str, ...] = (), ended: tuple[int, ...] = ()) -> list[str]:
    """What torchrun says of ranks that ended with these codes; it has ended some itself, and says so."""
    logs = [
        f"W1201 01:02:03.4 9 .venv/torch/distributed/elastic/multiprocessing/api.py:1010] Sending process {100 + rank} "
        "closing signal SIGTERM"
        for rank in ended
    ]
    listed = []
    for rank, code in enumerate(codes):
        listed += [f"[{rank}]:", "  time      : 2026-12-01_01:42:03", "  host      : localhost"]
        listed += [f"  rank      : {rank} (local_rank: {rank})", f"  exitcode  : {code} (pid: {100 + rank})"]
        listed += ["  error_file: <N/A>", "  traceback : To enable traceback see: https://pytorch.org/docs/"]
    trace = [
        "Traceback (most recent call last):",
        '  File "run.py", line 1, in <module>',
        "    raise ChildFailedError(",
    ]
    name = "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: "
    return [*before, *logs, *trace, name, "=" * 60, "train.py FAILED", "Failures:", *listed, "=" * 60]


@pytest.mark.parametrize(
    ("kind", "code", "output"),
    [
        ("killed", -9, []),
        ("killed", 137, []),
        ("aborted", -6, []),
        ("error", 1, []),
        ("error", 1, [ERROR]),
        ("memory", 1, [MEMORY]),
        ("memory", -6, ["  what(): std::bad_alloc"]),
        ("killed", 1, torchrun(1, -9, before=(GLOO,))),
        ("killed", 1, torchrun(-15, -9, ended=(0,))),
        ("error", 1, torchrun(-15, 1, before=(ERROR,), ended=(0,))),
        ("error", 1, torchrun(-9, 1, before=(ERROR,), ended=(0,))),  # it did not end when it was asked to
        ("error", 1, torchrun(-6, 1, before=(ERROR, NCCL))),
        ("error", 1, torchrun(1, 1, before=(ERROR, GLOO))),
        ("memory", 1, torchrun(-15, 1, before=(MEMORY,), ended=(0,))),
        ("memory", 1, torchrun(1, 1, before=(MEMORY, NCCL))),
        ("memory", 1, torchrun(*[1] * 16, before=(MEMORY,))),
        ("contact", 1, torchrun(1, 1, before=(GLOO, NCCL))),
        ("aborted", 1, torchrun(-11, 1, before=(GLOO,))),
        ("killed", 1, ["torch.distributed.elastic.multiprocessing.api.SignalException: Process 9 got signal: 15"]),
        ("killed", 1, ["subprocess.CalledProcessError: Command '['a']' died with <Signals.SIGKILL: 9>."]),
        ("killed", 1, ["[INFO] [launch.py:335:sigkill_handler] ['python', 'train.py'] exits with return code = -9"]),
        ("error", 1, ["ConnectionResetError: [Errno 104] Connection reset by peer"]),  # of a download, say
    ],
)
def test_the_cause_is_told(kind, code, output):
    assert endings.of(code, output).kind == kind


def test_a_process_that_was_killed_is_named():
    assert endings.of(1, torchrun(1, -9)).said == "lost process 101, rank 1, which was killed by SIGKILL"

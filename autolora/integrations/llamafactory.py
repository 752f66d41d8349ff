"""LLaMA-Factory, following autolora's trial: ``python -m autolora.integrations.llamafactory FILE``."""

from __future__ import annotations

from llamafactory.train.tuner import run_exp

from autolora.integrations.segment import SegmentCallback


def main() -> None:
    """Train as ``llamafactory-cli train`` does, with the file that the command line names."""
    callback = SegmentCallback.here()
    run_exp(callbacks=[] if callback is None else [callback])


if __name__ == "__main__":
    main()

"""axolotl's plugin that has a training follow autolora's trial; ``plugins`` of a trial's file names it."""

from __future__ import annotations

from typing import Any

from axolotl.integrations.base import BasePlugin

from autolora.integrations.segment import SegmentCallback


class AxolotlPlugin(BasePlugin):  # type: ignore[misc]  # axolotl is not there when types are checked
    """Does nothing in a training that autolora has not started."""

    def add_callbacks_pre_trainer(self, cfg: Any, model: Any) -> list[SegmentCallback]:
        """The callback of the trial that this process trains."""
        callback = SegmentCallback.here()
        return [] if callback is None else [callback]

"""What attaching, exporting and loading need to know of a variant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from peft.tuners.tuners_utils import BaseTuner
    from transformers import PreTrainedModel

    from autolora.adapters.layer import AdaptedLayer
    from autolora.adapters.spec import AdapterSpec
    from autolora.adapters.start import Allotment, Start
    from autolora.adapters.targets import LinearLayer
    from autolora.space import Traits


class Declaration(Protocol):
    """A variant as the mechanism sees it; ``autolora.variants.Variant`` says what each of these means."""

    @property
    def name(self) -> str: ...

    @property
    def traits(self) -> Traits: ...

    @property
    def needs(self) -> tuple[str, ...]: ...

    @property
    def needs_batches(self) -> bool: ...

    @property
    def options(self) -> Mapping[str, object]: ...

    def check(self, start: Start[LinearLayer]) -> None: ...

    def allocate(self, start: Start[LinearLayer]) -> Mapping[str, Allotment]: ...

    def lora_config(self, start: Start[LinearLayer], target_modules: list[str]) -> PeftConfig: ...

    def tuner(self) -> type[BaseTuner] | None: ...

    def attach(
        self, model: PreTrainedModel, rank: int, alpha: float, *, adapter_name: str, adapter: AdapterSpec
    ) -> PeftModel: ...

    def initialize(self, start: Start[AdaptedLayer]) -> None: ...

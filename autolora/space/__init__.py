"""The search space, a point in it, and the scaling-law coordinates in which all variants look alike."""

from autolora.space.config import Config, Options
from autolora.space.coordinates import Coordinates
from autolora.space.dimension import Dimension, Scope, registry
from autolora.space.dimensions.fields import FIELDS
from autolora.space.dimensions.learning_rate import AUTO as AUTO_LEARNING_RATE
from autolora.space.domain import Domain, Range
from autolora.space.named import Named
from autolora.space.searchable import Searchable
from autolora.space.space import Space, drawing_order
from autolora.space.traits import Traits

__all__ = [
    "AUTO_LEARNING_RATE",
    "FIELDS",
    "Config",
    "Coordinates",
    "Dimension",
    "Domain",
    "Named",
    "Options",
    "Range",
    "Scope",
    "Searchable",
    "Space",
    "Traits",
    "drawing_order",
    "registry",
]

"""What tests read off an attached model."""

from __future__ import annotations

from autolora.adapters.attachment import attachment
from autolora.adapters.subtraction import weight_matrix


def factors(model, name):
    layer = attachment(model).layers[name]
    return layer.a, layer.b


def original_weights(model):
    """W (m, n) of every adapted layer, whether or not it is subtracted from."""
    kept = attachment(model).subtracted
    return {
        name: kept[name].original if name in kept else weight_matrix(layer.base_layer)
        for name, layer in attachment(model).layers.items()
    }

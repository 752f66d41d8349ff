"""Row scores as JSON-able text that is compact and exact."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping

import numpy as np

from autolora.scores import Scores


def encode(scores: Scores) -> dict[str, str]:
    """Totals and weights, each as base64 of the compressed little-endian float64 values."""
    return {"totals": _text(scores.totals), "weights": _text(scores.weights)}


def decode(value: float, encoded: Mapping[str, str]) -> Scores:
    """The inverse of :func:`encode`.

    Args:
        value: the score, which is that of the rows where there are any.
        encoded: from :func:`encode`.

    Raises:
        ValueError: that is not what was encoded.
    """
    totals, weights = _array(encoded["totals"]), _array(encoded["weights"])
    return Scores.of(totals, weights) if len(totals) else Scores(value)


def _text(array: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(np.asarray(array, dtype="<f8").tobytes())).decode("ascii")


def _array(text: str) -> np.ndarray:
    try:
        content = zlib.decompress(base64.b64decode(text))
    except zlib.error as error:
        raise ValueError(str(error)) from None
    return np.frombuffer(content, dtype="<f8").astype(np.float64)

"""Bytes of the adapter as its checkpoint holds it; an export may be larger, see the variant's form."""

from __future__ import annotations

from autolora.metrics.measures.measure import Measure, register

register(Measure("adapter_size", "minimize", lambda facts: facts.adapter_bytes, "B"))

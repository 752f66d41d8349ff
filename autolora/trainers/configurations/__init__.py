"""Configuration files of tools that users train with: read, and written for a trial or with tuned values; no torch.

A tool is a file of this folder and a line below.
"""

from __future__ import annotations

from autolora.trainers.configurations.axolotl import AXOLOTL_TOOL
from autolora.trainers.configurations.file import ConfigFile
from autolora.trainers.configurations.llamafactory import LLAMA_FACTORY_TOOL
from autolora.trainers.configurations.tool import ConfigurationError, Tool, whole

__all__ = ["TOOLS", "ConfigFile", "ConfigurationError", "Tool", "whole"]

TOOLS: dict[str, Tool] = {tool.kind: tool for tool in (AXOLOTL_TOOL, LLAMA_FACTORY_TOOL)}
"""Every tool by the key of the specification's section."""

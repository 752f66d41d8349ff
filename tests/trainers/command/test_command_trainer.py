"""The trainer of command lines, by the contract."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from autolora import spec as specs
from autolora.trainers import open_trainer
from tests.support import train_command
from tests.support.trainer_contract import TrainerContract

SCRIPT = Path(train_command.__file__)

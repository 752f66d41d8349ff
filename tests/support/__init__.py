"""What tests share that is no fixture: small models and specifications, contracts, simulated searches, processes."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("tests.support.executor_contract", "tests.support.trainer_contract")

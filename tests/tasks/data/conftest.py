"""Files of rows, and what is read of them."""

import json

import pytest

from autolora.tasks.causal_lm.spec import DataSpec
from autolora.tasks.data.sources import open_source


@pytest.fixture
def write(tmp_path):
    """Write rows as JSON lines and return the path."""

    def write(name, rows):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return str(path)

    return write


@pytest.fixture
def read():
    """The rows that training reads of what a specification names."""

    def read(train):
        table = open_source("train", DataSpec(train=train)).table
        return [dict(row) for row in table.fetch(range(len(table)), table.columns)]

    return read

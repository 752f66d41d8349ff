"""Processes that tests start and kill."""

from __future__ import annotations

import multiprocessing

# Of a server that has imported everything: kills then fall on the work, not on imports. A process has one such server,
# for all its tests.
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(
    [
        "autolora.driver",
        "autolora.api",
        "autolora.study.study",
        "alembic.command",
        "sqlalchemy.dialects.postgresql",
        "peft",
        "datasets",
        "accelerate",
        "transformers.trainer",
        "psycopg",
        "pytest",
    ]
)

"""Secrets of a storage's URL stay out of sight, and what cannot be opened says so at once."""

from __future__ import annotations

import sys
import time
import traceback

import pytest
import sqlalchemy

from autolora import Search
from autolora.study import Study
from autolora.study.storage import StudyError, resolved, shown
from tests.support.postgres import PASSWORD


def open_search(storage: str) -> Search:
    return Search(["lora"], budget=4, storage=storage)


@pytest.mark.parametrize(
    ("storage", "seen"),
    [
        ("sqlite:///study.db", "sqlite:///study.db"),
        ("sqlite:////a:b@c/study.db", "sqlite:////a:b@c/study.db"),
        ("postgresql+psycopg://me@host:5432/db", "postgresql+psycopg://me@host:5432/db"),
        ("postgresql+psycopg://me:s3cret@host/db", "postgresql+psycopg://me:***@host/db"),
        ("postgresql+psycopg://me:s3/cr:et@x@host/db", "postgresql+psycopg://me:***@host/db"),
        ("postgresql+psycopg://me:${WORD}@host/db", "postgresql+psycopg://me:${WORD}@host/db"),
        ("postgresql+psycopg://me:s${3}cret@host/db", "postgresql+psycopg://me:***@host/db"),
        ("postgresql://host/db?user=me&password=s3cret&x=1", "postgresql://host/db?user=me&password=***&x=1"),
        ("postgresql://host/db?sslpassword=s3cret", "postgresql://host/db?sslpassword=***"),
        ("host=h password=s3cret", "host=h password=***"),
        ("${AUTOLORA_STORAGE}", "${AUTOLORA_STORAGE}"),
    ],
)
def test_passwords_are_hidden_and_references_kept(storage, seen):
    assert shown(storage) == seen
    assert shown(seen) == seen


def test_a_variable_stands_for_a_part_of_the_url_as_it_is(monkeypatch):
    monkeypatch.setenv("WORD", "p@ss/w:rd%{}")
    url = resolved("postgresql+psycopg://me:${WORD}@host/db")
    assert (url.username, url.password, url.host, url.database) == ("me", "p@ss/w:rd%{}", "host", "db")


def test_a_variable_stands_for_the_whole_url(monkeypatch):
    monkeypatch.setenv("AUTOLORA_STORAGE", "postgresql+psycopg://me:s3cret@host/db")
    assert resolved("${AUTOLORA_STORAGE}").password == "s3cret"


def test_a_hidden_password_is_left_to_the_driver():
    assert resolved("postgresql+psycopg://me:***@host/db").password is None


def test_a_variable_that_is_not_set_is_named(monkeypatch):
    monkeypatch.delenv("WORD", raising=False)
    with pytest.raises(StudyError, match="the environment variable WORD, which is not set"):
        open_search("postgresql+psycopg://me:${WORD}@host/db")


def test_a_recorded_url_finds_its_password_where_libpq_looks(postgres, monkeypatch):
    url = postgres.new_database()
    open_search(url).ask()
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    assert len(Study.read(shown(url), "autolora").events()) == 1


@pytest.mark.parametrize(
    "storage",
    ["me:s3cret@host/db", "postgresql+psycopg://me:s3cret@host:port/db", "postgresql+psycopg://me:s3cret/@x:y@host/db"],
)
def test_what_is_no_url_is_said_without_its_password(storage):
    with pytest.raises(StudyError) as error:
        open_search(storage)
    assert "s3cret" not in "".join(traceback.format_exception(error.value)).replace(repr(storage), "")


def test_an_unknown_kind_of_database_is_said(tmp_path):
    with pytest.raises(StudyError, match="nosuch"):
        open_search("nosuch://host/db")


def test_a_missing_driver_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StudyError, match=r'pip install "autolora-tune\[postgres\]"'):
        open_search("postgresql+psycopg://me:s3cret@127.0.0.1:1/db")


@pytest.mark.parametrize("wrong", ["password", "port", "database", "host"])
def test_a_storage_that_cannot_be_opened_says_so_at_once_and_shows_no_password(postgres, wrong):
    storage = {
        "password": postgres.url("postgres", "wr0ng"),
        "port": "postgresql+psycopg://me:s3cret@127.0.0.1:1/postgres",
        "database": postgres.url("missing"),
        "host": "postgresql+psycopg://me:s3cret@host.invalid/postgres",
    }[wrong]
    began = time.monotonic()
    with pytest.raises(StudyError, match=r"postgresql\+psycopg://me:\*\*\*@.* does not work: ") as error:
        open_search(storage)
    assert time.monotonic() - began < 5
    assert "\n" not in str(error.value)
    report = "".join(traceback.format_exception(error.value))
    assert "s3cret" not in report.replace(repr(storage), "")
    assert "wr0ng" not in report


def test_the_study_holds_no_password(postgres):
    url = postgres.new_database()
    open_search(url).ask()
    engine = sqlalchemy.create_engine(url)
    with engine.connect() as connection:
        tables = sqlalchemy.inspect(engine).get_table_names()
        content = [str(row) for table in tables for row in connection.execute(sqlalchemy.text(f"TABLE {table}"))]
    assert len(content) > 10
    assert not any(PASSWORD in row for row in content)

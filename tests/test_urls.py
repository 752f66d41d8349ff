"""Secrets of URLs are hidden, whoever wrote them and however."""

from __future__ import annotations

import pytest

from autolora import urls

MARK = "mArk3r-s3cret"

SECRET = [
    "postgresql+psycopg://me:{}@host/db",
    "postgresql+psycopg://me:%40{}%2F@host/db",
    "postgresql+psycopg://me:a/{}:b@c@host/db",
    "postgresql://host/db?user=me&password={}&x=1",
    "mysql+pymysql://host/db?passwd={}",
    "mysql+pymysql://host/db?PASSWORD={}",
    "postgresql://host/db?sslpassword={}&sslmode=require",
    "mssql://host/db?PWD={}",
    "mssql+pyodbc:///?odbc_connect=DRIVER%3DX%3BUID%3Dme%3BPWD%3D{}",
    "s3://key:{}@bucket/folder",
    "s3://bucket/folder?secret={}",
    "s3://bucket/folder?x=1;client_secret={}",
    "gs://bucket/folder?token={}",
    "abfs://container@account.example/folder?sas_token={}",
    "az://c/f?account_key={}",
    "az://c/f?sig={}&se=2030",
    "https://{}@host/model",
    "https://{}:x-oauth-basic@host/model",
    "HTTPS://me:{}@host/train.jsonl",
    "https://host/train.jsonl?api_key={}",
    "https://host/train.jsonl?Api-Key={}",
    "https://host/train.jsonl?access_key={}",
    "https://host/x?X-Amz-Signature={}&X-Amz-Date=1",
    "https://host/x?X-Amz-Security-Token={}",
    "https://host/x#access_token={}",
    "https://host/x?pass%77d={}",
    "https://host/x?p%41SSWORD={}",
    "sftp://me:{}@host:22/folder",
    "ftp://me:{}@host/folder",
    "simplecache::sftp://me:{}@host/folder",
    "host=h password={} user=me",
    "host=h password = '{}' user=me",
    "https:/me:{}@host/collapsed",
]
PLAIN = [
    "sqlite:///study.db",
    "sqlite:////a:b@c/study.db",
    "postgresql+psycopg://me@host:5432/db?passfile=/x/.pgpass&sslkey=/y&target_session_attrs=any",
    "postgresql+psycopg://me:${WORD}@host/db?password=${OTHER}",
    "s3://bucket/folder",
    "abfs://container@account.example/folder",
    "hf://datasets/me/rows@main/train.jsonl",
    "sftp://me@host/folder",
    "memory://folder?x=1",
    "${STORAGE}",
    "owner/name:train[:100]",
]


@pytest.mark.parametrize("url", SECRET)
def test_secrets_are_hidden(url):
    seen = urls.shown(url.format(MARK))
    assert MARK not in seen
    assert seen == urls.shown(seen)
    assert "***" in seen
    assert urls.is_hidden(seen)
    assert not urls.is_hidden(url.format(MARK))


@pytest.mark.parametrize("url", PLAIN)
def test_what_is_no_secret_is_shown(url):
    assert urls.shown(url) == url


@pytest.mark.parametrize("url", SECRET)
def test_messages_of_others_are_scrubbed(url):
    url = url.format(MARK)
    said = f"cannot connect to {url} with '{MARK}' ({MARK}); see host"
    assert MARK not in urls.scrubbed(said, url)
    assert urls.scrubbed(said, url).endswith("; see host")


@pytest.mark.parametrize("url", SECRET)
def test_urls_in_messages_are_hidden_without_being_known(url):
    if "://" in url:
        assert MARK not in urls.scrubbed(f"cannot open '{url.format(MARK)}': no")


def test_a_secret_by_reference_is_scrubbed(monkeypatch):
    monkeypatch.setenv("WORD", MARK)
    monkeypatch.setenv("WHOLE", f"s3://key:{MARK}@bucket")
    assert urls.scrubbed(f"bad {MARK}", "s3://key:${WORD}@bucket") == "bad ***"
    assert urls.scrubbed(f"bad {MARK}", "${WHOLE}") == "bad ***"


def test_a_short_secret_hides_itself_alone():
    assert urls.scrubbed("pa is no part of a path", "s3://key:pa@bucket") == "*** is no part of a path"


def test_variables_are_percent_encoded_where_they_stand_for_a_part(monkeypatch):
    monkeypatch.setenv("WORD", "p@ss/w:rd")
    monkeypatch.setenv("WHOLE", "s3://key:secret@bucket")
    assert urls.resolved("s3://key:${WORD}@bucket") == "s3://key:p%40ss%2Fw%3Ard@bucket"
    assert urls.resolved("${WHOLE}") == "s3://key:secret@bucket"
    monkeypatch.delenv("WORD")
    with pytest.raises(urls.VariableError, match="WORD, which is not set"):
        urls.resolved("s3://key:${WORD}@bucket")


def test_a_url_names_the_same_by_whatever_secret():
    forms = ["s3://key:a@b/c?token=x", "s3://key:${A}@b/c?token=***", "s3://key:***@b/c?token=${T}"]
    assert len({urls.identity(form) for form in forms}) == 1


def test_what_is_beneath_keeps_the_parameters_at_the_end():
    assert urls.joined("s3://b/c?token=x", "trials", "0") == "s3://b/c/trials/0?token=x"
    assert urls.joined("file:///a?b=c", "trials") == "file:///a?b=c/trials"

"""URLs that users give: passwords and tokens in them are in no message and no record.

``${NAME}`` in a URL stands for the environment variable of that name, and is shown and recorded as it is.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Callable
from urllib.parse import quote, unquote, unquote_plus

from autolora.errors import AutoloraError

HIDDEN = "***"
REFERENCE = re.compile(r"\$\{(\w+)\}")

# To the last @: one that belongs to the password should be written %40, and often is not.
_PASSWORD = re.compile(r"(:/{1,2}(?!/)[^:/@]*:)(\$\{\w+\}(?=@)|.+(?=@))", re.DOTALL)
# Hosts of web pages are given tokens as the user's name.
_USER = re.compile(r"(https?:/{1,2}(?!/))([^/?#]+(?=@))", re.IGNORECASE)
_IN_QUERY = re.compile(r"(?:^|[?&;#])(?P<name>[^=&;?#]+)=(?P<value>[^&#]+)")
_IN_WORDS = re.compile(r"(?:^|[?&;#\s])(?P<name>[^=&;?#\s]+)\s*=\s*(?P<value>'(?:\\.|[^'])*'|[^&\s]+)")
_SECRET = re.compile(
    r"pass(?!file)|pwd|secret|token|credential|signature|bearer|jwt"
    r"|(api|access|account|private|shared|session|encryption|cipher|hex|master)key"
    r"|^(key|sig|sas|auth|authorization|oauth|pw|ticket)$"
)
"""In names of parameters that hold secrets, in lower case and without punctuation."""
_SHORT = 6
"""Letters of a secret below which a text is searched for it as a word: as a part of words it would be everywhere."""
_IN_TEXT = re.compile(r"[A-Za-z][\w+.-]*:/+[^\s'\"<>]+")


class VariableError(AutoloraError, ValueError):
    """A URL refers to an environment variable that is not set."""


def shown(url: str) -> str:
    """The URL, or a connection written otherwise, as it may be printed and recorded.

    Passwords are ``***``, and so are parameters whose names tell that they are secret. References to variables stay.
    """
    return _with_secrets(url, lambda secret: secret if REFERENCE.fullmatch(secret) else HIDDEN)


def identity(url: str) -> str:
    """What the URL names, by whatever secret it is reached: as :func:`shown`, with secrets by reference hidden, too."""
    return _with_secrets(url, lambda secret: HIDDEN)


def is_hidden(url: str) -> bool:
    """Whether a secret in the URL is ``***``, as in a record, so that the URL alone does not suffice."""
    return HIDDEN in _secrets(url)


def variable(name: str) -> str:
    """The environment variable of that name, which a URL refers to.

    Raises:
        VariableError: it is not set.
    """
    try:
        return os.environ[name]
    except KeyError:
        raise VariableError(f"the environment variable {name}, which is not set") from None


def resolved(url: str) -> str:
    """The URL with the values of the variables that it refers to.

    A variable stands for the whole URL, or for a part of it, where it needs no percent-encoding.

    Raises:
        VariableError: one is not set.
    """
    whole = REFERENCE.fullmatch(url.strip())
    if whole:
        return variable(whole[1])
    return REFERENCE.sub(lambda reference: quote(variable(reference[1]), safe=""), url)


def joined(url: str, *names: str) -> str:
    """The URL of what is beneath another one. Parameters stay at its end if one of them is secret.

    Otherwise what looks like parameters may be a part of the path.
    """
    path, question, query = url.partition("?")
    if any(is_secret(parameter.partition("=")[0]) for parameter in query.split("&")):
        return posixpath.join(path, *names) + question + query
    return posixpath.join(url, *names)


def scrubbed(text: str, *urls: str) -> str:
    """The text of somebody else's message without secrets.

    Args:
        text: any URLs in it are as :func:`shown`.
        urls: their secrets are hidden wherever they stand in the text, percent-encoded or not.
    """
    spellings = {spelling for url in urls for secret in _secrets(url) for spelling in _spellings(secret)}
    for spelling in sorted(spellings - {"", HIDDEN}, key=len, reverse=True):
        pattern = re.escape(spelling)
        text = re.sub(pattern if len(spelling) >= _SHORT else rf"(?<!\w){pattern}(?!\w)", HIDDEN, text)
    return _IN_TEXT.sub(lambda url: shown(url[0]), text)


def is_secret(parameter: str) -> bool:
    """Whether the name of a parameter, percent-encoded or not, tells that its value is secret."""
    return bool(_SECRET.search(re.sub(r"[\W_]", "", unquote_plus(parameter).lower())))


def _with_secrets(url: str, replaced: Callable[[str], str]) -> str:
    """The URL with each secret replaced."""
    for pattern in (_PASSWORD, _USER):
        url = pattern.sub(lambda found: found[1] + replaced(found[2]), url)

    pattern, begin = (_IN_QUERY if "://" in url else _IN_WORDS), 0
    while found := pattern.search(url, begin):
        first, last = found.span("value")
        if found["value"] == HIDDEN or is_secret(found["name"]) or _inner_secrets(found["value"]):
            secret = replaced(found["value"])
            url, begin = url[:first] + secret + url[last:], first + len(secret)
        else:
            begin = first
    return url


def _inner_secrets(value: str) -> list[str]:
    """Secrets in a parameter that holds a whole connection, as odbc_connect does."""
    words = _IN_WORDS.finditer(unquote_plus(value).replace(";", " "))
    return [found["value"] for found in words if is_secret(found["name"])]


def _secrets(url: str) -> list[str]:
    """The secrets of a URL as they are written in it; of a URL that is a variable, those of its value."""
    whole = REFERENCE.fullmatch(url.strip())
    if whole:
        return _secrets(os.environ.get(whole[1], ""))
    found: list[str] = []

    def replaced(secret: str) -> str:
        found.append(secret)
        return HIDDEN

    _with_secrets(url, replaced)
    return found


def _spellings(secret: str) -> set[str]:
    """How a secret may stand in a message."""
    reference = REFERENCE.fullmatch(secret)
    plain = os.environ.get(reference[1], "") if reference else secret
    decoded = {plain, plain.strip("'"), unquote(plain), unquote_plus(plain), *_inner_secrets(plain)}
    # Of one that is not percent-encoded, a driver may take a part for the host.
    parts = {part for each in decoded for part in re.split(r"[/@:]", each) if len(part) >= _SHORT}
    return {spelling for each in decoded | parts for spelling in (each, quote(each, safe=""))}

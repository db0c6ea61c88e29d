"""Removal of secrets and control characters from output, and the rule which address may get the hub's token."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar, cast
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import pandas as pd

SECRET = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|AUTH|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY")
"""Parts of the name of an environment variable with a secret value."""
PLACE = re.compile(r"_(FILE|PATH|DIR|URL|URI|SOCK)$")
"""Ends of the names of variables that hold a path or an address."""
LEAST = 8
"""Shorter values are not replaced, since they may be ordinary words."""
LOGIN = re.compile(r"(?<=://)[^/\s@'\"]+(?=@)")
QUERY = re.compile(r"([?&;][\w.-]*(?:token|secret|passw|credential|auth|key|sig|signature)[\w.-]*=)[^&\s'\"]+", re.IGNORECASE)
BEARER = re.compile(r"(?<![A-Za-z0-9])(?:hf_[A-Za-z0-9]{16,}|(?<=Bearer )[\w.~+/=-]{8,})")
ASSIGNED = re.compile(r"(\b[A-Z0-9_]*(?:TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY)=)[^\s'\";&]+")
HOMES = re.compile(
    r"(?<![\w.~/-])(?:(?:/[\w.@+-]+)*?/(?:home|homes|users)/[\w.@+-]+|/root(?![\w.@+-])|[A-Z]:[\\/]+users[\\/]+[^\\/\s'\"]+)",
    re.IGNORECASE,
)
"""Home folders, of this machine or another."""
UNSHOWN = re.compile(r"(?!\x1b\[[014]m)[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that move a terminal's cursor, change its colours, reverse its text or cannot be encoded; tabs, line ends and the bold type
of a table's best value are allowed."""
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""First characters of cells that spreadsheets execute."""
HIDDEN = "***"
Content = TypeVar("Content")


def without_secrets(content: Content) -> Content:
    """A text, or all texts of plain lists and dicts, with `***` in place of secrets.

    Secrets are values of environment variables that are named as tokens, keys or passwords, logins in addresses,
    values of queries and assignments with such names, and tokens of the Hugging Face hub.
    """
    secrets = sorted(
        (
            value
            for name, value in os.environ.items()
            if SECRET.search(name.upper()) and not PLACE.search(name.upper()) and len(value) >= LEAST and not value.startswith("/")
        ),
        key=len,
        reverse=True,
    )
    return cast(Content, _changed(content, lambda text: _blotted(text, secrets)))


def without_homes(content: Content) -> Content:
    """A text, or all texts of plain lists and dicts, with `~` in place of the user's home folder and of paths that look like one."""
    home = os.path.expanduser("~")
    own = re.compile(rf"(?<![\w.~-]){re.escape(home)}(?![\w.@+-])") if len(home) > 1 else HOMES
    return cast(Content, _changed(content, lambda text: HOMES.sub("~", own.sub("~", text))))


def said(line: object) -> str:
    """A line for a terminal or a log: without secrets, and with control characters and lone surrogates escaped."""
    return UNSHOWN.sub(lambda found: ascii(found[0])[1:-1], without_secrets(str(line)))


def harmless(cell: object) -> object:
    """A cell of a CSV file: a text that a spreadsheet would take for a formula gets an apostrophe in front, unless it is a number."""
    if not isinstance(cell, str) or cell[:1] not in FORMULA:
        return cell
    try:
        float(cell)
        return cell
    except ValueError:
        return f"'{cell}"


def without_formulas(table: pd.DataFrame) -> pd.DataFrame:
    """A table with all texts `harmless`; numbers are unchanged."""
    return table.assign(**{name: table[name].map(harmless) for name in table if table[name].dtype.kind in "OSU"})


def _blotted(text: str, secrets: list[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    return BEARER.sub(HIDDEN, ASSIGNED.sub(rf"\1{HIDDEN}", QUERY.sub(rf"\1{HIDDEN}", LOGIN.sub(HIDDEN, text))))


def _changed(content: object, change: Callable[[str], str]) -> object:
    """Plain content with all its texts changed, keys aside."""
    match content:
        case str():
            return change(content)
        case dict():
            return {name: _changed(value, change) for name, value in content.items()}
        case list() | tuple():
            return type(content)(_changed(value, change) for value in content)
    return content


def loopback(host: str) -> bool:
    """Whether a host is the loopback of this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def may_have_token(address: str, hub: str) -> bool:
    """Whether the hub's token may go to an address: only to the hub itself, and over plain http only on this machine."""
    parts, own = urlsplit(address), urlsplit(hub)
    guarded = parts.scheme == "https" or parts.scheme == "http" and loopback(parts.hostname or "")
    return guarded and (parts.scheme, parts.netloc.lower()) == (own.scheme, own.netloc.lower())

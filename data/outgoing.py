"""What goes out: texts without secrets and control characters, and tokens to none but their own hub."""

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
"""In the name of a variable of the environment whose value is one."""
PLACE = re.compile(r"_(FILE|PATH|DIR|URL|URI|SOCK)$")
"""At the end of the name of a variable that says where something is."""
LEAST = 8
"""Shorter values are words that stand in any text."""
LOGIN = re.compile(r"(?<=://)[^/\s@'\"]+(?=@)")
QUERY = re.compile(r"([?&;][\w.-]*(?:token|secret|passw|credential|auth|key|sig|signature)[\w.-]*=)[^&\s'\"]+", re.IGNORECASE)
BEARER = re.compile(r"(?<![A-Za-z0-9])(?:hf_[A-Za-z0-9]{16,}|(?<=Bearer )[\w.~+/=-]{8,})")
ASSIGNED = re.compile(r"(\b[A-Z0-9_]*(?:TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY)=)[^\s'\";&]+")
HOMES = re.compile(
    r"(?<![\w.~/-])(?:(?:/[\w.@+-]+)*?/(?:home|homes|users)/[\w.@+-]+|/root(?![\w.@+-])|[A-Z]:[\\/]+users[\\/]+[^\\/\s'\"]+)",
    re.IGNORECASE,
)
"""Folders of people, of this machine or another."""
UNSHOWN = re.compile(r"(?!\x1b\[[014]m)[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What moves a terminal's cursor, changes its colours, turns its text round or cannot be written; tabs, ends of lines and the bold of a
table's best value may pass."""
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a cell begins with that spreadsheets carry out."""
HIDDEN = "***"
Content = TypeVar("Content")


def without_secrets(content: Content) -> Content:
    """A text, or all texts of plain lists and dicts, with `***` for what nobody else may know.

    That are values of the environment's variables that are named as tokens, keys and passwords are, logins before an address's host,
    values of queries and of assignments so named, and tokens of the Hugging Face hub.
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
    """A text, or all texts of plain lists and dicts, with `~` for the home folder of whoever runs this, and for whatever looks like one."""
    home = os.path.expanduser("~")
    own = re.compile(rf"(?<![\w.~-]){re.escape(home)}(?![\w.@+-])") if len(home) > 1 else HOMES
    return cast(Content, _changed(content, lambda text: HOMES.sub("~", own.sub("~", text))))


def said(line: object) -> str:
    """A line as a terminal or a log gets it: without secrets, control characters and halves of emoji written as their numbers."""
    return UNSHOWN.sub(lambda found: ascii(found[0])[1:-1], without_secrets(str(line)))


def harmless(cell: object) -> object:
    """A cell of a CSV file: a text that a spreadsheet would take for a formula, and that is no number, begins with an apostrophe."""
    if not isinstance(cell, str) or cell[:1] not in FORMULA:
        return cell
    try:
        float(cell)
        return cell
    except ValueError:
        return f"'{cell}"


def without_formulas(table: pd.DataFrame) -> pd.DataFrame:
    """A table with all texts `harmless`; numbers stay what they are."""
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
    """Whether a name or an address is this machine's own, as nobody else reaches it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def may_have_token(address: str, hub: str) -> bool:
    """Whether the hub's token may go to an address: to the hub itself, and over plain http on this machine alone."""
    parts, own = urlsplit(address), urlsplit(hub)
    guarded = parts.scheme == "https" or parts.scheme == "http" and loopback(parts.hostname or "")
    return guarded and (parts.scheme, parts.netloc.lower()) == (own.scheme, own.netloc.lower())

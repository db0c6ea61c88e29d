"""Command lines: words as `key=value`, `--flag VALUE` and bare names, each known beforehand; lines as the answer."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

from echo.refusals import nearest_of


class Partly(ValueError):
    """Some of what was asked is done. lines: the answer about that; failures: a line for each of the rest."""

    def __init__(self, lines: Sequence[str], failures: Sequence[str]) -> None:
        super().__init__("\n".join(failures))
        self.lines = tuple(lines)


def parse(words: Sequence[str], known: Mapping[str, str], names: Sequence[str] = ()) -> tuple[dict[str, str], list[str]]:
    """Values by key, and the bare names in the order given.

    Args:
        words: the command line.
        known: keys with their defaults; `--output` is a flag, which takes the next word or `--output=VALUE`.
        names: bare words that are understood.

    Raises:
        ValueError: in one line, for a word that is none of these or a flag without a value.
    """
    given, bare = dict(known), list[str]()
    rest = iter(words)
    for word in rest:
        key, equals, value = word.partition("=")
        if key in known and equals:
            given[key] = value
        elif key in known and key.startswith("--"):
            given[key] = _next(key, rest)
        elif word in names:
            bare.append(word)
        else:
            forms = [*names, *(f"{k} VALUE" if k.startswith("--") else f"{k}=" for k in known)]
            raise ValueError(f"{word}: not understood; {nearest_of(word, forms)}")
    return given, bare


def _next(flag: str, rest: Iterator[str]) -> str:
    value = next(rest, None)
    if value is None or value.startswith("--"):
        raise ValueError(f"{flag}: a value follows, for example {flag} FILE")
    return value


def answer(command: Callable[[Sequence[str]], Sequence[str]], words: Sequence[str]) -> int:
    """Write the lines of a command, or in one line why it is refused; the exit status, 1 for a refusal or where some of it failed."""
    try:
        lines = command(words)
    except Partly as error:
        sys.stdout.write("".join(f"{line}\n" for line in error.lines))
        sys.stdout.flush()
        sys.stderr.write(f"{error}\n")
        return 1
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write("\n".join(lines) + "\n")
    return 0

"""Pages of the site that are not in docs/: copies of README and other files, and the reference, which is made from the code."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import io
import re
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from baselines import registry
from baselines.presets import preset
from jobs import cli
from jobs.cli.commands import GROUPS, USUAL
from jobs.spec.compose import one
from jobs.spec.config import RunConfig

ROOT = Path(__file__).resolve().parents[1]
COPIED = {"index.md": "README.md", "notebooks.md": "notebooks/README.md", "changes.md": "CHANGELOG.md"}
"""Page of the site -> file of the repository."""
PYTHON = """# Python

The interface for your own notebooks and scripts. Everything else may change without notice.

::: eval.store.frame
::: echo.generate
::: echo.cache.policy.Policy
::: echo.cache.policy.Memory
::: echo.cache.plan
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the copied and the generated pages."""
    pages = {page: _moved((ROOT / source).read_text(encoding="utf-8"), source) for page, source in COPIED.items()}
    pages |= {"reference/settings.md": settings(), "reference/policies.md": policies(), "reference/commands.md": commands()}
    for page, text in (pages | {"reference/python.md": PYTHON}).items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point links out of docs/ to the pages of their files; a link to a file without a page becomes plain text."""
    return markdown if page.file.generated_by else _moved(markdown, f"docs/{page.file.src_uri}")


def _moved(text: str, source: str) -> str:
    """The text of a file of the repository with its links changed for the site."""

    def link(match: re.Match[str]) -> str:
        words, path, anchor = match.groups()
        whole = (ROOT / source).parent.joinpath(path).resolve().relative_to(ROOT).as_posix()
        page = next((page for page, copied in COPIED.items() if copied == whole), None)
        if page is None and whole.startswith("docs/"):
            page = "index.md" if whole == "docs/README.md" else whole.removeprefix("docs/")
        return words[1:-1] if page is None else f"{words}({page}{anchor})"

    badge = r"!\[[^\]]*\]\([^)]*\)"  # a picture that is a link
    return re.sub(rf"(!?\[(?:{badge}|[^\]])*\])\((?!https?:|#)([^)#\s]+)((?:#[^)\s]*)?)\)", link, text)


def settings() -> str:
    """Every setting of a run: its values, its default, and the name that it enters."""
    usual, real = one([]), one(["backbone=self_forcing", "eval=vbench"])
    usual["backbone"]["parts"], usual["eval"]["vbench"] = real["backbone"]["parts"], real["eval"]["vbench"]
    lines = [
        "# Settings of a run\n",
        "Settings of `python run.py KEY=VALUE`, with the defaults of `method=echo task=recall`, and the name that each enters: that of the",
        "`pixels`, that of the `scores`, or none. Defaults of `backbone.parts` and `eval.vbench` are those of",
        "`backbone=self_forcing eval=vbench`.",
        "A setting of a policy is `method.NAME=VALUE`: [Policies](policies.md).\n",
        "| setting | values | by default | enters |\n|---|---|---|---|",
    ]
    return "\n".join([*lines, *_rows(RunConfig, "", usual)]) + "\n"


def _rows(kind: type, path: str, values: Any) -> Iterator[str]:
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        inner = next((one for one in (hints[field.name], *typing.get_args(hints[field.name])) if dataclasses.is_dataclass(one)), None)
        value = values.get(field.name) if isinstance(values, Mapping) else None
        if inner is not None:
            yield from _rows(typing.cast(type, inner), f"{path}{field.name}.", value)
        elif f"{path}{field.name}" != "method.settings":
            reason = field.metadata.get("reason")
            enters = f"nothing: {reason}" if reason else field.metadata["enters"].replace("_file", ", by the file's content")
            yield f"| `{path}{field.name}` | {_values(hints[field.name])} | {_cell(value)} | {enters} |"


def _values(kind: Any) -> str:
    """A type in the words of a table's cell."""
    if typing.get_origin(kind) is typing.Literal:
        return ", ".join(map(_cell, typing.get_args(kind)))
    members = typing.get_args(kind)
    return ", ".join(map(_values, members)) if members else "null" if kind is type(None) else getattr(kind, "__name__", str(kind))


def _cell(value: object) -> str:
    return "" if value in (None, "") else f"`{getattr(value, 'value', value)}`".replace("|", "\\|")


def policies() -> str:
    """Every policy: its description, settings with defaults, and presets."""
    by_policy: dict[str, list[str]] = {}
    for name in sorted(path.stem for path in (ROOT / "conf" / "method").glob("*.yaml")):
        by_policy.setdefault(preset("method", name)["policy"], []).append(name)
    lines = ["# Policies\n", "Each policy with its settings, `method.NAME=VALUE`, and its presets (`conf/method`).\n"]
    for name in registry.shipped():
        kind = registry.find(name)
        module = inspect.getdoc(inspect.getmodule(kind)) or ""
        lines += [f"## {name}\n", module + "\n", (inspect.getdoc(kind) or "") + "\n"]
        lines += ["Presets: " + ", ".join(f"`{one}`" for one in by_policy.get(name, [])) + "\n", "| setting | by default |\n|---|---|"]
        lines += [f"| `{field.name}` | {_cell(_default(field))} |" for field in dataclasses.fields(kind)] + [""]
    return "\n".join(lines)


def _default(field: dataclasses.Field[Any]) -> object:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def commands() -> str:
    """The printed help of every command."""
    lines = ["# Commands\n"]
    for words in ([], *_named(GROUPS)):
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            cli.main([*words, "--help"])
        lines += [f"## {' '.join([cli.NAME, *words])}\n", f"```text\n{printed.getvalue().strip()}\n```\n"]
    return "\n".join(lines)


def _named(table: Mapping[str, Any]) -> Iterator[list[str]]:
    for name, (_, inner) in table.items():
        if name != USUAL:
            yield [name]
        if isinstance(inner, Mapping):
            yield from ([name, *words] for words in _named(inner))

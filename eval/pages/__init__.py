"""HTML pages that open from disk: templates, the common look and its theme switch, and data that is safe inside scripts.

A page extends `base.html`, which contains the common style and script, so that one file is a whole page. Blocks to fill:
`title`, `style` (CSS), `heading`, `main` and `script` (JavaScript). Templates may call
`source(name)`, which inserts a file of the templates' folder, and `value | tojson`, which writes data into a script.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

FOLDER = Path(__file__).parent / "templates"


def render(name: str, **context: Any) -> str:
    """A page from a template of this package; text in it is escaped.

    Args:
        name: for example `report.html`.
        context: variables of the template.

    Raises:
        jinja2.UndefinedError: if the context lacks a variable.
    """
    return _environment().get_template(name).render(**context)


def source(name: str) -> Markup:
    """A file of the templates' folder, unchanged, for a page's own <style> or <script>."""
    return Markup((FOLDER / name).read_text(encoding="utf-8"))


def literal(value: Any) -> str:
    """A value or a record as a JavaScript literal that cannot end the script around it; ValueError for a number that is not finite."""
    return str(htmlsafe_json_dumps(msgspec.to_builtins(value), allow_nan=False, separators=(",", ":")))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals["source"] = source
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return environment

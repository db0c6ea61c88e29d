"""Templates and data in scripts."""

from __future__ import annotations

import json
import math
import tomllib

import pytest

from echo.files import ROOT
from eval.pages import FOLDER, literal, render, source


def test_data_cannot_leave_its_script():
    value = {"a": "</script><b>'\"&\u2028", "b": [1.5, None, True]}
    text = literal(value)
    assert "<" not in text and "'" not in text and "&" not in text and json.loads(text) == value


def test_numbers_that_are_no_json_are_refused():
    with pytest.raises(ValueError, match="JSON"):
        literal({"a": math.nan})


def test_a_page_carries_its_look_inside_itself():
    page = render("base.html")
    assert source("common.css") in page and source("theme.js") in page and "http" not in page


def test_templates_are_installed():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    patterns = settings["package-data"]["eval.pages"]
    told = {path for pattern in patterns for path in FOLDER.parent.glob(pattern)}
    assert {path for path in FOLDER.rglob("*") if path.is_file()} <= told

"""Notebooks in git: no output except small pictures, no metadata of their last session, only valid commands."""

from __future__ import annotations

import base64
import copy
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from echo.files import ROOT
from eval.figures.command import orders
from tests.helpers.notebooks import METADATA, NOTEBOOK_KB, NOTEBOOKS, PICTURE_KB, cleaned, faults, main, overdue, read, write
from tests.test_documents import broken_links, commands
from tests.test_documents import faults as misunderstood

PICTURE = base64.b64encode(b"\x89PNG" + bytes(100)).decode()


def code(source: str, *outputs: dict[str, Any], count: int | None = None) -> dict[str, Any]:
    return {"cell_type": "code", "id": "cell-00", "metadata": {}, "source": [source], "execution_count": count, "outputs": list(outputs)}


def shown(data: str = PICTURE, kind: str = "image/png") -> dict[str, Any]:
    return {"output_type": "display_data", "data": {kind: data}, "metadata": {}}


def notebook(*cells: dict[str, Any]) -> dict[str, Any]:
    numbered = [cell | {"id": f"cell-{place:02d}"} for place, cell in enumerate(cells)]
    return {"cells": numbered, "metadata": METADATA, "nbformat": 4, "nbformat_minor": 5}


def test_there_are_the_four() -> None:
    names = ["01_first_comparison", "02_new_policy", "03_tables_and_figures", "04_what_compression_keeps"]
    assert [path.stem for path in NOTEBOOKS] == names


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_in_git_is_clean(path: Path) -> None:
    assert not list(faults(read(path), path.stat().st_size)), "python -m tests.helpers.notebooks --clean puts it right"


def plain(shell: str) -> str:
    """A shell cell without where its output goes, and with a preset that is there before the notebook writes its own."""
    return re.sub(r" > \S+", "", shell).replace("$STORE", "x").replace("bookmark", "oracle")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebooks_commands_are_understood_and_its_links_lead_somewhere(path: Path) -> None:
    cells = read(path)["cells"]
    texts = ["".join(cell["source"]) for cell in cells]
    shell = ["```bash\n" + plain(text.partition("\n")[2]) + "\n```\n" for text in texts if text.startswith("%%bash")]
    prose = [text for cell, text in zip(cells, texts) if cell["cell_type"] == "markdown"]
    found = [command for text in [*shell, *prose] for command in commands(text)]
    figures = [shlex.split(command)[3:] for command in found if "eval.figures.command" in command]
    assert all(orders(words) for words in figures), "it raises for a word that a figure does not know"
    assert found and not [fault for command in found if "eval.figures.command" not in command for fault in misunderstood(command)]
    assert not [link for text in prose for link in broken_links(text, path.parent)]


def test_the_page_about_them_is_true() -> None:
    text = (ROOT / "notebooks" / "README.md").read_text(encoding="utf-8")
    assert not list(broken_links(text, ROOT / "notebooks")) and all(path.name in text for path in NOTEBOOKS)
    assert not [fault for command in commands(text) for fault in misunderstood(command)]


@pytest.mark.parametrize(
    ("spoilt", "message"),
    [
        (notebook(code("1", count=3)), "cell 0 has an execution count"),
        (notebook(code("1", shown("hello", "text/plain"))), "cell 0 has output other than a PNG: display_data text/plain"),
        (notebook(code("1", {"output_type": "stream", "name": "stdout", "text": ["x"]})), "cell 0 has output other than a PNG: stream "),
        (notebook(code("1", shown() | {"metadata": {"x": 1}})), "cell 0 has output other than a PNG: display_data image/png"),
        (notebook(code("1", shown(PICTURE * 600))), f"cell 0 has a picture of 63 kB, {PICTURE_KB} at most"),
        (notebook(code("1") | {"metadata": {"scrolled": True}}), "cell 0 has metadata of its own"),
        (notebook(code("1\n" * 37)), "cell 0 has 37 lines of code, 36 at most"),
        (notebook() | {"metadata": METADATA | {"vscode": {}}}, "its metadata differ from those of all"),
    ],
)
def test_what_may_not_be_in_git_is_seen(spoilt: dict[str, Any], message: str) -> None:
    before = copy.deepcopy(spoilt)
    assert message in list(faults(json.loads(json.dumps(spoilt)), 1000))
    kept = list(faults(cleaned(spoilt), 1000))
    assert spoilt == before and all("picture" in fault or "lines of code" in fault for fault in kept), "the rest goes by cleaning"


def test_a_heavy_notebook_is_seen() -> None:
    assert list(faults(notebook(), NOTEBOOK_KB * 1000 + 1)) == [f"takes {NOTEBOOK_KB} kB, {NOTEBOOK_KB} at most"]


def test_cleaning_keeps_text_and_pictures_and_changes_nothing_twice(tmp_path: Path) -> None:
    data = {"image/png": PICTURE, "text/plain": "<x>"}
    result = {"output_type": "execute_result", "execution_count": 2, "data": data, "metadata": {"a": 1}}
    once = cleaned(notebook({"cell_type": "markdown", "metadata": {"tags": []}, "source": "# A\nb"}, code("1\n2", result, count=2)))
    assert [cell["source"] for cell in once["cells"]] == [["# A\n", "b"], ["1\n", "2"]]
    assert once["cells"][1]["outputs"] == [shown()] and cleaned(once) == once and not list(faults(once, 1000))
    write(tmp_path / "a.ipynb", once)
    assert read(tmp_path / "a.ipynb") == once


def test_an_unknown_name_is_refused_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--clean", "nothing"]) == 2 and main(["--claen"]) == 2
    assert capsys.readouterr().err.splitlines()[0].startswith("nothing: give --clean, or part of a name of 01_first_comparison")


def test_what_takes_too_long_is_told_and_a_busy_machine_excuses_waiting_alone() -> None:
    assert not overdue(119, 119, 120, load=2.0) and not overdue(300, 40, 120, load=99.0)
    assert overdue(121, 40, 120, load=1.0) == "121 s (40 s of processor time, load 1.0), 120 at most"
    assert not overdue(300, 89, 120, load=99.0) and overdue(121, 91, 120, load=99.0)

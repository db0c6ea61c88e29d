"""Every notebook runs from top to bottom, with half of its prompts and seconds in 90 seconds of two cores, in a copy of the repository."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.notebooks import LIMIT_S, NOTEBOOKS, cleaned, copy_of_tree, execute, faults, overdue, read, write

pytestmark = pytest.mark.slow
pytest.importorskip("nbclient", reason='notebooks are executed by nbclient: pip install -e ".[notebooks]"')
pytest.importorskip("ipykernel", reason='notebooks need a kernel: pip install -e ".[notebooks]"')


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import nbformat

    nbformat.validate(nbformat.read(path, 4))
    tree = copy_of_tree(tmp_path)
    text = path.read_text(encoding="utf-8")
    halved = text.replace("prompts=4", "prompts=2").replace(r"\"tiny\", 4)", r"\"tiny\", 2)").replace("scale=0.5", "scale=0.25")
    assert halved != text
    (tree / "notebooks" / path.name).write_text(halved, encoding="utf-8")
    done = execute(tree / "notebooks" / path.name, tree)
    with capsys.disabled():
        print(f"\n{path.stem}: {done.wall_s:.1f} s, {done.cpu_s:.1f} s of processor time")
    assert Path(done.python) == Path(sys.executable), "another Python ran it"
    assert not (told := overdue(done.wall_s, done.cpu_s, 0.75 * LIMIT_S)), told
    came, lie = (sum(len(cell.get("outputs", ())) for cell in one["cells"]) for one in (cleaned(done.notebook), read(path)))
    assert came == lie > 0, "pictures in git are those that it makes; python -m tests.helpers.notebooks writes them"
    assert not list(faults(cleaned(done.notebook), 0)), "what it makes now is small too"


def test_a_notebook_leaves_the_working_tree_alone(tmp_path: Path) -> None:
    """Its Python imports the copy it lies in, not what is installed."""
    tree = copy_of_tree(tmp_path)
    setup = read(NOTEBOOKS[0])["cells"][1]
    here = "import echo.files\nassert echo.files.ROOT.samefile('.'), echo.files.ROOT\n"
    shell = setup | {"source": "%%bash -e\npython -c \"import echo.files as s; assert s.ROOT.samefile('.'), s.ROOT\""}
    write(tree / "notebooks" / "x.ipynb", cleaned({"cells": [setup, setup | {"source": here}, shell]}))
    execute(tree / "notebooks" / "x.ipynb", tree)


@pytest.mark.parametrize("source", ["1 / 0", "%%bash -e\necho-harness tables --store nowhere\ntrue"])
def test_a_cell_that_fails_is_noticed(source: str, tmp_path: Path) -> None:
    from nbclient.exceptions import CellExecutionError

    (tmp_path / "notebooks").mkdir()
    cell = {"cell_type": "code", "metadata": {}, "source": source, "outputs": [], "execution_count": None}
    write(tmp_path / "notebooks" / "x.ipynb", cleaned({"cells": [cell]}))
    with pytest.raises(CellExecutionError, match="ZeroDivisionError|CalledProcessError"):
        execute(tmp_path / "notebooks" / "x.ipynb", tmp_path)


def test_without_nbclient_it_says_why_it_is_skipped(tmp_path: Path) -> None:
    """A Python in which nbclient cannot be found."""
    block = "import sys; sys.modules['nbclient'] = None; import pytest; sys.exit(pytest.main(sys.argv[1:]))"
    words = [sys.executable, "-c", block, "-n", "0", "-q", "-rs", "-m", "slow", "-p", "no:cacheprovider", __file__]
    done = subprocess.run(words, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert 'pip install -e ".[notebooks]"' in done.stdout and "skipped" in done.stdout, done.stdout

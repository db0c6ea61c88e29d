"""Notebooks, run in a copy of the repository by this very Python and stripped of all output but small pictures.

python -m tests.helpers.notebooks [NAME ...]           # run those whose name has NAME in it (all), write their pictures back
python -m tests.helpers.notebooks --clean [NAME ...]   # strip them as they are: after a session in Jupyter, before a commit
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from echo.files import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
METADATA = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}, "language_info": {"name": "python"}}
"""What a notebook says of itself; versions and the like come and go with whoever opened it last."""
PICTURE_KB, NOTEBOOK_KB, LIMIT_S = 60, 250, 120
CODE_LINES = 36


@dataclass(frozen=True)
class Done:
    """A notebook as it came out of its kernel; python: the interpreter that ran it; wall_s and cpu_s: of kernel and children."""

    notebook: dict[str, Any]
    python: str
    wall_s: float
    cpu_s: float


def read(path: Path) -> dict[str, Any]:
    """A notebook as plain data."""
    return dict(json.loads(path.read_text(encoding="utf-8")))


def write(path: Path, notebook: Mapping[str, Any]) -> None:
    """In the form that Jupyter writes, so that a session there changes no line by itself."""
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")


def cleaned(notebook: Mapping[str, Any]) -> dict[str, Any]:
    """The notebook without counts, without metadata of its own and without outputs, but for what is a PNG."""
    cells = []
    for place, cell in enumerate(notebook["cells"]):
        found = {"cell_type": cell["cell_type"], "id": f"cell-{place:02d}", "metadata": {}, "source": lines(cell["source"])}
        if cell["cell_type"] == "code":
            found |= {"execution_count": None, "outputs": [plain(one) for one in cell["outputs"] if "image/png" in one.get("data", {})]}
        cells.append(found)
    return {"cells": cells, "metadata": METADATA, "nbformat": 4, "nbformat_minor": 5}


def lines(source: str | Sequence[str]) -> list[str]:
    """A cell's text line by line, as it lies in files."""
    return "".join(source).splitlines(keepends=True)


def plain(output: Mapping[str, Any]) -> dict[str, Any]:
    """An output's picture alone."""
    return {"data": {"image/png": "".join(output["data"]["image/png"])}, "metadata": {}, "output_type": "display_data"}


def faults(notebook: Mapping[str, Any], size: int) -> Iterator[str]:
    """What a notebook may not have in git; `size`: bytes of its file."""
    if notebook["metadata"] != METADATA or (notebook["nbformat"], notebook["nbformat_minor"]) != (4, 5):
        yield "its metadata differ from those of all"
    if size > NOTEBOOK_KB * 1000:
        yield f"takes {size / 1000:.0f} kB, {NOTEBOOK_KB} at most"
    for place, cell in enumerate(notebook["cells"]):
        if cell["metadata"] or cell.get("id") != f"cell-{place:02d}" or cell.get("attachments"):
            yield f"cell {place} has metadata of its own"
        if cell["cell_type"] == "code":
            yield from (f"cell {place} {fault}" for fault in cell_faults(cell))


def cell_faults(cell: Mapping[str, Any]) -> Iterator[str]:
    """What a code cell may not have in git."""
    count = len(lines(cell["source"]))
    if count > CODE_LINES:
        yield f"has {count} lines of code, {CODE_LINES} at most"
    if cell["execution_count"] is not None:
        yield "has an execution count"
    for output in cell["outputs"]:
        data = output.get("data", {})
        if set(data) != {"image/png"} or output.get("metadata"):
            yield f"has output other than a PNG: {output['output_type']} {', '.join(data)}"
            continue
        size = len("".join(data["image/png"])) * 3 / 4
        if size > PICTURE_KB * 1000:
            yield f"has a picture of {size / 1000:.0f} kB, {PICTURE_KB} at most"


def copy_of_tree(folder: Path) -> Path:
    """The files that git knows or would take in, as they stand in the working tree."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines():
        if (ROOT / name).is_file() and not name.startswith("tests/golden"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def execute(path: Path, tree: Path) -> Done:
    """Run a notebook from top to bottom, as Jupyter would that was started in `tree/notebooks`, one thread a process.

    Raises:
        nbclient.exceptions.CellExecutionError: with the cell and its traceback, where one fails.
    """
    import nbformat
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient

    notebook = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell("import sys; sys.executable"))
    environment = {
        **os.environ,
        "IPYTHONDIR": str(tree / ".ipython"),
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "PYTHONPATH": str(tree),
    }
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # where echo-harness is
    kernels = KernelSpecManager(kernel_dirs=[])  # none but this Python's, whatever the user has installed
    start, used = time.perf_counter(), cpu_s()
    with tempfile.TemporaryDirectory() as folder:  # of sockets, whose paths must be short
        manager = AsyncKernelManager(kernel_name="python3", transport="ipc", ip=f"{folder}/kernel", kernel_spec_manager=kernels)
        patience = dict.fromkeys(("timeout", "startup_timeout", "iopub_timeout"), 2 * LIMIT_S)  # a late picture is no missing one
        client = NotebookClient(notebook, manager, resources={"metadata": {"path": str(tree / "notebooks")}}, **patience)
        client.execute(env=environment, cleanup_kc=True)
    wall = time.perf_counter() - start
    python = notebook.cells.pop().outputs[0]["data"]["text/plain"].strip("'")
    return Done(dict(json.loads(nbformat.writes(notebook))), python, wall, cpu_s() - used)


def cpu_s() -> float:
    """Processor seconds of all children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def overdue(wall_s: float, cpu_s: float, limit_s: float, load: float | None = None) -> str:
    """Why something took too long, or nothing. Where others load the machine, three quarters of the limit in processor time count.

    load: processes that want a core, of the last minute; the machine's by default.
    """
    waiting = os.getloadavg()[0] if load is None else load
    if wall_s < limit_s or (waiting > (os.cpu_count() or 1) + 0.5 and cpu_s < 0.75 * limit_s):
        return ""
    return f"{wall_s:.0f} s ({cpu_s:.0f} s of processor time, load {waiting:.1f}), {limit_s:.0f} at most"


def main(words: Sequence[str]) -> int:
    """Command line; see the module's docstring."""
    names = [word for word in words if word != "--clean"]
    wanted = [path for path in NOTEBOOKS if not names or any(name in path.stem for name in names)]
    if not wanted or any(name.startswith("-") for name in names):
        sys.stderr.write(f"{' '.join(names)}: give --clean, or part of a name of {', '.join(path.stem for path in NOTEBOOKS)}\n")
        return 2
    for path in wanted:
        told = "cleaned"
        notebook = cleaned(read(path))
        if "--clean" not in words:
            with tempfile.TemporaryDirectory() as folder:
                done = execute(path, copy_of_tree(Path(folder)))
            notebook, told = cleaned(done.notebook), f"{done.wall_s:.0f} s, {done.cpu_s:.0f} s of processor time"
        write(path, notebook)
        print(f"{path.name}: {told}", *(f"  {fault}" for fault in faults(notebook, path.stat().st_size)), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

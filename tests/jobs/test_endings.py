"""Every end of a command is at most one line: its errors, and faults of streams, terminals and folders."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest
import yaml

from echo.files import ROOT
from echo.refusals import Unfinished
from jobs.cli import TRACEBACK, ended, main
from jobs.launch import sweep

PROGRAM = "import sys; from jobs.cli import ended; sys.exit(ended(lambda: print('76.21 ± 5.85 ' + 'Wołęga ' * {count})))"


def broken_yaml() -> Exception:
    try:
        yaml.safe_load("a: 1\n\tb: 2\n")
    except yaml.YAMLError as error:
        return error
    raise AssertionError


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (ValueError("x=1: a rule"), 2, "x=1: a rule"),
        (SystemExit("x=1: a rule"), 2, "x=1: a rule"),
        (SystemExit(1), 1, ""),
        (Unfinished("2 videos are missing"), 1, "2 videos are missing"),
        (Unfinished(), 1, ""),
        (KeyboardInterrupt(), 130, "stopped; the same command goes on"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "x"), 2, "[Errno 2] No such file or directory: 'x'"),
        (OSError(errno.EIO, "Input/output error", "x"), 1, "[Errno 5] Input/output error: 'x'"),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "cannot write: No space left on device, where the output goes or where"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 1, ""),
        (broken_yaml(), 2, '<unicode string>, line 2: found character'),
        (RuntimeError("first\nsecond"), 1, "RuntimeError: first ("),
        (KeyError("x"), 1, "KeyError: 'x' ("),
        (UnicodeEncodeError("ascii", "é", 0, 1, "ordinal not in range(128)"), 1, "UnicodeEncodeError: 'ascii' codec"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)  # fmt: skip
def test_whatever_is_raised_is_a_line_and_a_status(error, status, line, capsys):
    def fails() -> int:
        raise error

    assert ended(fails) == status
    told = capsys.readouterr().err
    assert told.startswith(line) and told.count("\n") == bool(line)
    if isinstance(error, RuntimeError):
        assert f"{__file__}, line " in told and f"{TRACEBACK}=1" in told


def test_what_typer_does_not_understand_is_a_line(capsys):
    assert main(["tables", "--store"]) == 2
    assert capsys.readouterr().err == "Option '--store' requires an argument.\n"


def test_a_traceback_can_be_asked_for(monkeypatch, capsys):
    monkeypatch.setenv(TRACEBACK, "1")
    assert ended(lambda: 1 // 0) == 1 and "Traceback" in capsys.readouterr().err


def test_a_full_disk_is_the_stores_or_else_the_outputs(monkeypatch, tmp_path):
    """An error without a file's name may be of either."""
    monkeypatch.setattr(sys, "argv", ["run.py", f"store={tmp_path}"])
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError, match="No space left") as raised:
        sweep._unwritable(full)
    assert raised.value is full
    monkeypatch.setattr(sys, "argv", ["run.py", "store=/dev/full"])
    assert sweep._unwritable(full).startswith("store=/dev/full: cannot be written (")


@pytest.mark.parametrize(
    ("shell", "out", "err", "status"),
    [
        ("{program} | head -c 5; exit ${{PIPESTATUS[0]}}", "76.21", "", 1),
        ("{program} > /dev/full", "", "cannot write: No space left on device, where the output goes or where a file was written\n", 1),
        ("{program} >&-", "", "", 0),
        ("{program} >&- 2>&- <&-", "", "", 0),
        ("{mistake} 2>&-", "", "", 2),
        ("{mistake} 2>/dev/full", "", "", 2),
        ("{mistake} >&-", "", "echo-harness tabels: no such command;", 2),
        ("PYTHONIOENCODING=ascii {short}", "76.21 ? 5.85 Wo??ga \n", "", 0),
        ("PYTHONIOENCODING=latin-1 {short} | iconv -f latin1 -t utf8", "76.21 ± 5.85 Wo??ga \n", "", 0),
        ("mkdir gone; cd gone; rmdir ../gone; {program}", "", "the working folder is gone; nearest is to `cd` into one that is there\n", 2),
    ],
)
def test_streams_terminals_and_folders(shell, out, err, status, tmp_path):
    programs = {"program": PROGRAM.format(count=20000), "short": PROGRAM.format(count=1)}
    programs["mistake"] = "import sys; from jobs.cli import main; sys.exit(main(['tabels']))"
    quoted = {name: f'"{sys.executable}" -c "{code}"' for name, code in programs.items()}
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    words = ["bash", "-c", shell.format(**quoted)]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.stdout == out and done.stderr.startswith(err) and done.stderr.count("\n") == bool(err) and done.returncode == status

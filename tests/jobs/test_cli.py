"""The command line: help of every command, its examples, exit statuses, the rule of keys and flags, completion, and what it imports."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator

import pytest

from echo.files import ROOT
from jobs import cli
from jobs.cli.commands import GROUPS, USUAL, Table
from tests.helpers.command import ECHO_HARNESS, understood

TEST_FILES = ROOT / "tests" / "golden"


def every(table: Table = GROUPS, before: str = "") -> Iterator[tuple[str, str, str]]:
    """Name, sentence and function of each command."""
    for name, (sentence, entry) in table.items():
        full = f"{before} {name}".strip()
        if isinstance(entry, str):
            yield full, sentence, entry
        else:
            yield from every(entry, full)


COMMANDS = list(every())


@pytest.mark.parametrize(("name", "target"), [(name, target) for name, _, target in COMMANDS], ids=[name for name, _, _ in COMMANDS])
def test_help_has_a_sentence_an_example_and_all_options(name, target, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main([*name.split(), "--help"]) == 0 and not list(tmp_path.iterdir()), "a help writes nothing"
    shown = capsys.readouterr().out
    usage, sentence, *_ = (part.strip() for part in shown.split("\n\n"))
    assert usage.startswith(f"Usage: echo-harness {name}") and sentence.endswith((".", ":")) and len(sentence) > 20
    examples = [line.strip() for line in shown.splitlines() if line.startswith("      echo-harness ")]
    assert examples, "no example"
    for example in examples:
        words = shlex.split(example)[1:]
        assert words[: len(name.split())] == name.split(), example
        understood(words)
    module, _, attribute = target.partition(":")
    function = getattr(sys.modules[module], attribute)
    code = function.__code__
    for option in code.co_varnames[code.co_posonlyargcount : code.co_argcount + code.co_kwonlyargcount]:
        flag = option in code.co_varnames[code.co_argcount :]
        if option not in ("settings", "course", "ways", "trial", "measures", "asked"):  # dataclasses, whose fields are keys
            assert (f"--{option.replace('_', '-')}" if flag else f"{option}=") in shown, option


def test_the_table_says_what_the_functions_say():
    """Each sentence begins with a verb, and no two commands share one."""
    sentences = [sentence for _, sentence, _ in COMMANDS]
    assert len(set(sentences)) == len(sentences) and all(sentence[0].isupper() and sentence.endswith(".") for sentence in sentences)
    assert all(
        USUAL in entry or isinstance(entry, str) or name in ("study", "claims", "data", "train", "audit")
        for name, (_, entry) in GROUPS.items()
    )


@pytest.mark.parametrize(
    ("words", "status", "line"),
    [
        (["trace", "method=echo", "task=recall", "blocks=2"], 0, ""),
        (["tabels"], 2, "echo-harness tabels: no such command; nearest is tables of run, suite"),
        (["trace", "method=echo"], 2, "task=: it is missing"),
        (["trace", "method=echo", "task=recall", "blocks=two"], 2, "blocks=two: a whole number is expected"),
        (["trace", "method=ehco", "task=recall"], 2, "nearest is 'echo'"),
        (["status", "store=x"], 2, "store=x: it says where it goes or how it is shown, which is a flag; nearest is --store x"),
        (["status", "--task", "hard"], 2, "--task: it says what is computed, which is written key=value; nearest is task="),
        (["plan", "--store", "x"], 2, "--store: not understood; settings are those of run.py"),
        (["tables", "compare=publishd"], 2, "compare=publishd: nearest is published"),
        (["data", "import", "x", "format=line", "--output", "y.jsonl"], 2, "format=line: nearest is lines of released, lines, jsonl"),
        (["study"], 2, "echo-harness study: give one of build, collect"),
        (["report", "--store", "/nowhere"], 2, "--store /nowhere: no run store"),
        (["replay", "nowhere.npz", "--weights", "w.npz", "--meta", "nowhere.json"], 2, "nowhere.json"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_exit_statuses_and_lines(words, status, line, capsys):
    assert cli.main(words) == status
    told = capsys.readouterr()
    assert line in told.err and told.err.count("\n") == (status > 0) and bool(told.out) == (status == 0)


def test_what_differs_is_status_1(capsys):
    words = [str(TEST_FILES / "recall.npz"), "--weights", str(TEST_FILES / "toy_weights.npz"), "--meta", str(TEST_FILES / "meta.json")]
    assert cli.main(["replay", *words]) == 0 and cli.main(["replay", *words, "--tolerance", "1e-9"]) == 1
    first, second = capsys.readouterr().out.splitlines()
    assert first == second and '"selection_mismatches": 0' in first


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["method=ehco"], "method=ehco: no such method; nearest is echo"),
        (["method=glob(ecco*)", "-m"], "method=glob(ecco*): matches nothing; nearest is method=echo"),
    ],
)
def test_run_is_run_py_with_status_2_for_a_mistake(words, line, tmp_path):
    store = tmp_path / "store"
    done = subprocess.run([*ECHO_HARNESS, "run", *words, f"store={store}"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr == f"{line}\n" and not done.stdout and not store.exists()


@pytest.mark.parametrize("words", [["--help"], ["tabels"], ["data", "--help"], ["audit", "--help"]], ids=" ".join)
def test_help_and_mistakes_import_no_library_of_numbers(words):
    code = "import sys; from jobs.cli import main; main(sys.argv[1:]); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, check=True)
    heavy = {"torch", "pandas", "numpy", "hydra", "matplotlib"} & set(done.stdout.splitlines()[-1].split())
    assert not heavy


@pytest.mark.parametrize(
    "words", [["plan", "metod=echo"], ["trace", "method=ehco", "task=recall"], ["tables", "--store", "/nowhere"]], ids=" ".join
)
def test_mistakes_import_no_torch(words):
    code = "import sys; from jobs.cli import main; main(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(
    ("shell", "part"), [("bash", "complete -o default"), ("zsh", "#compdef echo-harness"), ("fish", "complete --command echo-harness")]
)
def test_completion_can_be_shown(shell, part):
    environment = os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    words = [*ECHO_HARNESS, "--show-completion", shell]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert part in done.stdout and "_ECHO_HARNESS_COMPLETE" in done.stdout


def test_completion_knows_commands_and_flags():
    def completed(line: str) -> str:
        environment = os.environ | {"_ECHO_HARNESS_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
        return subprocess.run(ECHO_HARNESS, cwd=ROOT, env=environment, capture_output=True, text=True, check=False).stdout

    assert completed("echo-harness tab").split() == ["tables"]
    assert "--failed" in completed("echo-harness status --f").split()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["status", "--store", ""], "--store : nothing is said, as by a variable that is not set"),
        (["status", "--store="], "--store= : nothing is said"),
        (["data", "import", "", "format=lines", "--output", "x.jsonl"], "nothing is said"),
        (
            ["data", "import", "x.txt", "format=lines", "first=1000000000000", "--output", "x.jsonl"],
            "first=1000000000000: 1000000000 at most",
        ),
        (["trace", "method=echo", "task=recall", "blocks=100000"], "blocks=100000: a video is 36000 s at most; nearest is 48000"),
    ],
)
def test_what_says_nothing_and_what_is_too_much_is_refused(words, said, capsys):
    assert cli.main(words) == 2
    line = capsys.readouterr().err
    assert said in line and line.count("\n") == 1

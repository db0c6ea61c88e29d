"""What the documents say is true: links lead somewhere, commands are understood, named files exist."""

from __future__ import annotations

import itertools
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from typer import TyperException

from baselines.registry import names as policies
from echo.files import ROOT
from jobs.spec.compose import one
from jobs.spec.config import from_plain
from tests.helpers.command import understood

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
INSTALL = "python3.11 -m venv .venv && .venv/bin/pip install -q -e "
MAIN_JOB = f"{INSTALL}. && .venv/bin/python run.py method=echo task=recall seed=0,1,2,3 -m"
TESTS = f'{INSTALL}".[dev]" && .venv/bin/python -m pytest -q'


def anchors(text: str) -> set[str]:
    """Names that Markdown gives to headings."""
    heads = re.findall(r"^#+ +(.+)$", text, flags=re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


def broken_links(text: str, folder: Path) -> Iterator[str]:
    """Targets of links and pictures that do not exist; addresses on the web are not asked."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        path = folder / name
        if not path.exists() or (anchor and anchor not in anchors(path.read_text(encoding="utf-8") if name else text)):
            yield target


def missing_files(text: str, folder: Path) -> Iterator[str]:
    """Paths of the repository that are named between backticks and do not exist."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    for name in re.findall(r"`([\w./-]+/[\w./-]*)`", prose):
        made = name.startswith(("results/", "DIR/", "<")) or "NAME" in name
        if not made and name.split("/")[0] in {path.name for path in folder.iterdir()} and not (folder / name).exists():
            yield name


def commands(text: str) -> Iterator[str]:
    """Single commands in the fenced shell blocks, split at `&&`, without comments and prompts."""
    for block in re.findall(r"^```(?:bash|sh|console|shell)\n(.*?)^```", text, flags=re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            for part in line.removeprefix("$ ").split("&&"):
                if part.strip() and not part.strip().startswith("#"):
                    yield part.strip()


def faults(command: str) -> Iterator[str]:
    """Why a command would not be understood."""
    words = shlex.split(command, comments=True)
    while words and "=" in words[0]:
        words = words[1:]
    program, rest = (words[0].rpartition("/")[2], words[1:]) if words else ("", [])
    if program == "echo-harness":
        yield from command_faults(rest)
    elif re.fullmatch(r"python(3(\.11)?)?", program) and rest[:1] == ["run.py"]:
        yield from run_faults([word for word in rest[1:] if word not in ("-m", "--multirun", "--help")], "-m" in rest)
    elif re.fullmatch(r"python(3(\.11)?)?", program) and rest[:1] == ["-m"]:
        ours = rest[1].startswith("tests.") and (ROOT / (rest[1].replace(".", "/") + ".py")).exists()
        if not ours and rest[1] not in ("venv", "pip", "pytest", "ruff", "mypy"):
            yield f"python -m {rest[1]}: the command line is echo-harness, and run.py"


def command_faults(words: list[str]) -> Iterator[str]:
    """Why echo-harness would not understand words; settings of a run are composed."""
    try:
        taken = understood(words)
    except (ValueError, TyperException) as error:
        yield error.format_message() if isinstance(error, TyperException) else str(error)
        return
    if words[:1] in (["run"], ["plan"], ["suite"], ["live"]) and not taken.get("power"):
        yield from run_faults([word for word in taken.get("words") or () if "=" in word], multirun=True)


def run_faults(words: list[str], multirun: bool) -> Iterator[str]:
    lines = []
    for word in words:
        override = OverridesParser.create().parse_override(word)
        if override.is_sweep_override() and not multirun:
            yield f"{word} needs -m"
            return
        values = override.sweep_string_iterator() if override.is_sweep_override() else [override.get_value_element_as_str()]
        lines.append([f"{override.key_or_group}={value}" for value in values][: 1 if override.key_or_group == "seed" else None])
    for line in itertools.product(*lines):
        try:
            from_plain(one(line))
        except Exception as error:
            yield f"{' '.join(line)}: {error}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_document_is_true(path):
    text = path.read_text(encoding="utf-8")
    found = [*broken_links(text, path.parent), *missing_files(text, ROOT), *(fault for c in commands(text) for fault in faults(c))]
    assert not found, "\n".join(found)


def test_readme_has_both_commands_on_a_line_each_and_is_short():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert MAIN_JOB in lines and TESTS in lines and len(lines) <= 150


def test_readme_names_every_policy_and_task():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in [*policies(), *(path.stem for path in (ROOT / "conf" / "task").glob("*.yaml"))]:
        assert f"`{name}`" in text, f"{name} is not in the README"


def test_ci_runs_the_readmes_test_command():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    pattern = re.search(r"grep -m1 -E '([^']+)'", script).group(1)
    found = subprocess.run(["grep", "-m1", "-E", pattern], input=f"text\n{MAIN_JOB}\n{TESTS}\n", capture_output=True, text=True, check=True)
    assert found.stdout.strip() == TESTS


def test_changelog_and_licence():
    assert (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").startswith("# Changelog")
    assert "MIT License" in (ROOT / "LICENSE").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "command",
    [
        "python run.py method=eco",
        "python run.py seed=0,1",
        "python run.py sede=1",
        "python run.py video.crf=99",
        "python -m eval.tabels",
        "echo-harness tables stor=x",
        ".venv/bin/echo-harness trace --pgn x.png",
    ],
)
def test_a_wrong_command_is_seen(command):
    assert list(faults(command))


@pytest.mark.parametrize("command", ["python run.py method=echo,self_forcing seed=0,1 -m", "echo-harness tables --store x", "git clone x"])
def test_a_right_command_passes(command):
    assert not list(faults(command))


def test_a_broken_link_is_seen():
    text = (
        "# A head\n[a](nowhere.md) [b](#a-head) [c](#no-head) [d](LICENSE) [e](https://x.y)\n`eval/nothing.py` `eval/tables/command.py`\n"
    )
    assert list(broken_links(text, ROOT)) == ["nowhere.md", "#no-head"]
    assert list(missing_files(text, ROOT)) == ["eval/nothing.py"]


def test_commands_are_found_in_shell_blocks_alone():
    text = "```bash\n# comment\n$ a b && c \\\n  d\n```\n```python\nno\n```\n"
    assert list(commands(text)) == ["a b", "c    d"]


@pytest.mark.slow
def test_the_site_is_built_without_a_broken_link(tmp_path):
    """README, guides, results and the reference that is made from the code; `--strict` refuses a link or an anchor that leads nowhere."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(tmp_path)]  # -q would hide warnings from --strict too
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = {path.relative_to(tmp_path).as_posix(): path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.html")}
    for page, words in {
        "policies": "relax_forcing",
        "settings": "backbone.parts.kernel",
        "commands": "tables speed",
        "python": "videos",
    }.items():
        assert words in pages[f"reference/{page}.html"], page
    fetched = {one for text in pages.values() for one in re.findall(r'<(?:script|link|img)[^>]* (?:src|href)="(https?://[^"]+)', text)}
    assert not {one for one in fetched if "img.shields.io" not in one}, "the site fetches nothing, but for README's badges"

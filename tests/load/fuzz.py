"""Damages files at random and counts the outcomes of commands that read them: `python -m tests.load.fuzz [--minutes 2] [--seed 0]`.

Each case is a kind of file (`tests.helpers.anyfiles`), a damage (`tests.helpers.damages`) and a command that reads such files, all drawn
by the case's number. The command runs in a forked process and may take 20 s. Its outcome is one of `OUTCOMES`. Each case of the last four
is printed in one line with the number that repeats it (--case), and the exit status is 1. The last line is JSON.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import itertools
import json
import os
import platform
import random
import re
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from echo.files import ROOT
from eval.store.origin import ROOMS, commit
from jobs import cli
from jobs.cli.commands import GROUPS, Table
from tests.helpers.anyfiles import SOUND, Kind, Sound, copied
from tests.helpers.damages import damage_drawn, fault_of

LIMIT_S = 20.0
"""A command that takes longer hangs."""
OUTCOMES = {
    "same": "the answer is that of the sound file",
    "refused": "the command fails or leaves something out, and says so",
    "other": "another answer, without a word, of a file that may be right",
    "traceback": "an error that nobody foresaw, or a process that died",
    "hang": f"no end within {LIMIT_S:g} s",
    "wordless": "a failure without a word",
    "silent": "another answer, without a word, of a file that cannot be right",
}
BAD = ("traceback", "hang", "wordless", "silent")
ANSWERS = (".csv", ".md", ".json", ".jsonl", ".html")
"""Endings of files whose content is part of an answer; of other files only the existence counts."""
Answer = tuple[int, str, str]
"""Exit status, printed text, and written files, without names of folders."""


@dataclass(frozen=True)
class Case:
    """A damaged file, the command that read it, and the outcome."""

    number: int
    kind: str
    file: str
    damage: str
    words: str
    outcome: str
    why: str
    said: str

    def __str__(self) -> str:
        """The case in one line, with the end of the printed text."""
        last = (self.said.strip().splitlines() or ["nothing"])[-1]
        return f"{self.outcome}, --case {self.number}: {self.kind} {self.file}, {self.damage}{self.why}: {self.words[:60]}: {last[:300]}"


class Fuzzer:
    """Sound files of every kind below a folder, made at their first use, and the commands' answers to them."""

    def __init__(self, folder: Path, seed: int, names: Sequence[str] = ()) -> None:
        self.folder, self.seed = folder, seed
        chosen = [sound for sound in SOUND if not names or sound.name in names]
        self.kinds: list[tuple[Sound, Kind]] = [(sound, kind) for sound in chosen for kind in sound.kinds]
        warm()

    @functools.cache  # noqa: B019
    def sound(self, sound: Sound) -> Path:
        """The folder of sound files."""
        folder = self.folder / "sound" / sound.name
        folder.mkdir(parents=True)
        status, said = carried_out(lambda: sound.make(folder) and 0, folder, 300.0)
        if status:
            raise RuntimeError(f"{sound.name}: no sound files: {said}")
        return folder

    @functools.cache  # noqa: B019
    def expected(self, sound: Sound, words: str, file: str, time: int = 0) -> Answer:
        """The answer of a command to sound files; `time` distinguishes repetitions."""
        place = copied(self.sound(sound), self.folder / "case")
        answer = self.answer(place, words, place / file)
        shutil.rmtree(place)
        if answer[0] not in (0, 1) or "Traceback" in answer[1]:
            raise RuntimeError(f"{words}: sound files are refused: {answer[1]}")
        return answer

    def answer(self, place: Path, words: str, file: Path) -> Answer:
        """The answer of a command to the files of a folder."""
        out = self.folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        filled = words.format(folder=place, file=file, out=out).split()
        status, said = carried_out(functools.partial(_command, place, filled), out, LIMIT_S)
        written = "".join(
            f"{path.relative_to(out)}\n{path.read_text(encoding='utf-8', errors='replace') if path.suffix in ANSWERS else ''}"
            for path in sorted(out.rglob("*"))
            if path.is_file() and not path.name.endswith(".meta.json")
        )
        return status, _plain(said, self.folder), _plain(written, self.folder)

    def case(self, number: int, keep: bool = False) -> Case:
        """Draw a case, carry it out, and judge it. keep: whether to keep the files."""
        draw = random.Random(f"{self.seed} {number}")
        sound, kind = draw.choice(self.kinds)
        whole = self.sound(sound)
        files = sorted(path.relative_to(whole).as_posix() for glob in kind.files for path in whole.glob(glob))
        file, words = draw.choice(files), draw.choice(kind.commands)
        asked = (sound, words, file if "{file}" in words else files[0])
        usual = self.expected(*asked)
        place = copied(whole, self.folder / "case")
        damage = damage_drawn(place / file, draw)
        answer = self.answer(place, words, place / file)
        outcome, why = judged(answer, usual, place / file, whole / file)
        place.rename(self.folder / "kept") if keep else shutil.rmtree(place)
        if outcome in ("other", "silent") and self.expected(*asked, time=1) != usual and _shape(answer) == _shape(usual):
            outcome, why = "same", ""  # a command that draws names, or measures times
        return Case(number, kind.name, file, damage, words, outcome, why, answer[1])


def judged(answer: Answer, usual: Answer, file: Path, sound: Path) -> tuple[str, str]:
    """The outcome of a case, from its answer and the answer to sound files, and the file's fault if that matters."""
    status, said = answer[:2]
    if status == HUNG:
        return "hang", ""
    if "Traceback (most" in said or cli.TRACEBACK in said or status < 0 or status == FELL:
        return "traceback", ""
    if status not in (0, usual[0]):
        return ("refused" if said.strip() else "wordless"), ""
    if answer == usual:
        return "same", ""
    news = {line for now, before in zip(answer[1:], usual[1:]) for line in {*now.splitlines()} - {*before.splitlines()}}
    if any(file.name in line or file.parent.name in line and "left out" in line for line in news) or status != usual[0]:
        return "refused", ""
    fault = fault_of(file, sound)
    return ("silent", f" ({fault})") if fault else ("other", "")


HUNG, FELL = 300, 301
"""Statuses of a stopped command, and of one that raised an error."""


def carried_out(call: Callable[[], Any], folder: Path, limit_s: float) -> tuple[int, str]:
    """Carry something out in a forked process with its output in a file; returns exit status and output."""
    log = folder.with_name("said")
    process = os.fork()
    if process == 0:
        status = FELL - 256
        try:
            os.setsid()
            handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            for stream in (1, 2):
                os.dup2(handle, stream)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            sys.stdout, sys.stderr = (os.fdopen(stream, "w", encoding="utf-8", closefd=False) for stream in (1, 2))
            os.chdir(folder)
            status = int(call() or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    watch, late, begun = os.pidfd_open(process), False, time.monotonic()
    try:
        while not late and not select.select([watch], [], [], limit_s)[0]:
            late = not _starved(process, limit_s) or time.monotonic() - begun > 10 * limit_s
        if late:
            os.killpg(process, signal.SIGKILL)
        _, state = os.waitpid(process, 0)
    finally:
        os.close(watch)
    status = HUNG if late else os.waitstatus_to_exitcode(state)
    return FELL if status == FELL - 256 else status, log.read_text(encoding="utf-8", errors="replace")


def _starved(process: int, limit_s: float) -> bool:
    """Whether a process runs and has had less than `limit_s` of CPU time, like on an overloaded machine."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return fields[0] in "RD" and (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") < limit_s


def _command(place: Path, words: Sequence[str]) -> int:
    """A command of `echo-harness` that can import packages of a folder."""
    sys.path.insert(0, str(place))
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return cli.main(words)


def _plain(text: str, folder: Path) -> str:
    """A text without names of folders, which differ each time."""
    return re.sub(r"\r[^\n]*", "", text.replace(str(folder), "@").replace(str(ROOT), "%"))


def _shape(answer: Answer) -> tuple[object, ...]:
    """The constant part of answers of a command that draws names or measures times: status, and output without digits."""
    return answer[0], re.sub(r"[\d.,+-]+|\b[0-9a-f]{8,}\b", "0", answer[1])


def warm(table: Table = GROUPS) -> None:
    """Import the modules of all commands once, before forking."""
    for _, entry in table.values():
        if isinstance(entry, str):
            importlib.import_module(entry.partition(":")[0])
        else:
            warm(entry)


def cases(fuzzer: Fuzzer, minutes: float) -> Iterator[Case]:
    """Cases by their numbers until the time is over."""
    end, number = time.monotonic() + 60 * minutes, 0
    with tqdm(unit="case", disable=not sys.stderr.isatty()) as bar:
        while time.monotonic() < end:
            yield fuzzer.case(number)
            number += 1
            bar.update()


def fuzz(
    minutes: float, seed: int, folder: Path, names: Sequence[str] = (), say: Callable[[str], object] = print, most: int | None = None
) -> dict[str, Any]:
    """Damage files for some minutes, or `most` times; returns counts by outcome, by kind and in total. Prints a line per bad case."""
    counts, kinds = Counter[str](), Counter[str]()
    for case in itertools.islice(cases(Fuzzer(folder, seed, names), minutes), most):
        counts[case.outcome] += 1
        kinds[case.kind] += 1
        if case.outcome in BAD:
            say(str(case))
    return {"cases": counts.total(), "outcomes": {name: counts[name] for name in OUTCOMES}, "kinds": dict(sorted(kinds.items()))}


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m tests.load.fuzz", description="Damage files at random; count what commands say.")
    parser.add_argument("--minutes", type=float, default=2.0, help="how long (default 2)")
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn")
    parser.add_argument("--only", default="", help=f"sound files, joined by commas, of {', '.join(sound.name for sound in SOUND)}")
    parser.add_argument("--case", type=int, help="one case again, with all that it says, its files kept")
    options = parser.parse_args(argv)
    names = [name for name in options.only.split(",") if name]
    place = Path(tempfile.mkdtemp())
    if options.case is not None:
        case = Fuzzer(place, options.seed, names).case(options.case, keep=True)
        print(f"{case}\n{case.said}\nfiles: {place}/kept")
        return int(case.outcome in BAD)
    try:
        told = fuzz(options.minutes, options.seed, place, names)
    finally:
        shutil.rmtree(place)
    print(json.dumps({**told, "minutes": options.minutes, "seed": options.seed, "machine": platform.machine(), "commit": commit(ROOMS)}))
    return int(any(told["outcomes"][name] for name in BAD))


if __name__ == "__main__":
    sys.exit(main())

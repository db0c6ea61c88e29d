"""Prompt sets from base prompts by a language model, as the paper's appendix A.1 makes them, every rule checked by code.

The model writes the parts of a story as JSON; `data.story` checks them and makes sentences. The model gets a list of mistakes and
answers again. Every request and answer is kept beside the output in OUT.log.jsonl; started again, the command does not repeat
accepted requests. `task=long` expands a base prompt into one detailed description.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any, Literal, TextIO

from omegaconf import OmegaConf

from data.chat import Chat, Endpoint, Local, Message, model_name, text_of
from data.formats import numbered_lines
from data.importers import check_duration
from data.prompt_sets import PromptLine, write_set
from data.sets.columns import LONE_S
from data.sets.texts import refuse_tags, tidy
from data.story import ATS, KEYS, Story, faults_of, parse_story, prompt_of
from echo.files import read_json
from echo.refusals import Unfinished
from echo.routing import words as content_words
from echo.scene import load_prompts

VERSION = 1
"""Increases when a change of code alters the prompts made from the same answers."""
SCENE_S = 10.0
TEXTS: Any = OmegaConf.to_container(OmegaConf.load(Path(__file__).resolve().parent / "stories" / "asks.yaml"))
PARTS = "\n" + Template(TEXTS["parts"]).substitute(ats=", ".join(ATS))
ASKS = {task: f"{TEXTS['intro']}\n{TEXTS[task]}{'' if task == 'long' else PARTS}" for task in KEYS}
"""Instructions for the model, by task."""


@dataclass(frozen=True)
class Base:
    """A base prompt and its place in the set."""

    index: int
    id: str
    text: str


def load_bases(path: Path) -> list[Base]:
    """Base prompts: lines of a text file, or the first scene of every record of a JSONL. Raises ValueError for an empty file."""
    if path.suffix == ".jsonl":
        return [Base(index, prompt.id, prompt.scenes[0]) for index, prompt in enumerate(load_prompts(path))]
    bases: list[Base] = []
    for number, line in numbered_lines(path):
        where = f"{path}:{number}"
        text = tidy(line, where)
        refuse_tags(text, where)
        bases.append(Base(len(bases), f"{len(bases):03d}", text))
    if not bases:
        raise ValueError(f"{path}: no base prompts")
    return bases


def parse_answer(task: str, said: str, stopped: str) -> Story:
    """The story in a model's answer, with or without a code fence or text around it.

    Raises:
        ValueError: for an answer without a story, with a message for the model.
    """
    if stopped == "length":
        raise ValueError("the answer was cut off before its end; write shorter texts and nothing but the JSON object")
    start, end = said.find("{"), said.rfind("}")
    if start < 0 or end < start:
        raise ValueError(f"the answer holds no JSON object; it has the keys {', '.join(KEYS[task])}")
    try:
        raw = json.loads(said[start : end + 1])
    except json.JSONDecodeError as error:
        raise ValueError(f"the answer is not valid JSON: {error.msg} at character {error.pos}") from None
    return parse_story(task, raw)


def strays(task: str, story: Story, base: str) -> bool:
    """Whether a story shares no content word with its base prompt, by the first four letters; other alphabets always pass."""
    story_text = " ".join((story.subject, story.text, story.light, *story.actions, *(place.what for place in story.places)))
    base_words, story_words = ({word[:4] for word in content_words(text) if word.isascii()} for text in (base, story_text))
    return bool(base_words) and not base_words & story_words


def faults_in(task: str, story: Story, base: Base, taken: Mapping[str, int]) -> list[str]:
    """All faults of a story: its own, an unrelated subject, a subject or text that another story has."""
    faults = faults_of(task, story, base.index)
    if strays(task, story, base.text):
        faults.append(f"the story has nothing of the base prompt {base.text!r}")
    other = taken.get(story.subject or story.text)
    if other is not None and other != base.index:
        faults.append(f"story {other} of this set has the same {'subject' if story.subject else 'text'}; make another")
    return faults


class Log:
    """Requests and answers beside an output, one JSON line each, for one process at a time; a line cut off by a kill is dropped."""

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file: TextIO = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(f"{path}: another process writes it; nearest is another --output") from None
        self._file.seek(0)
        text = self._file.read()
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            self._file.truncate(len(whole.encode()))
        lines = [read_json(line, f"{path}:{number}") for number, line in enumerate(whole.splitlines(), 1)]
        if lines and not (isinstance(lines[0], dict) and isinstance(lines[0].get("settings"), dict)):
            raise ValueError(f"{path}: not begun by this command; nearest is another --output")
        self._first = None if lines else {"settings": dict(settings)}
        if lines and lines[0]["settings"] != dict(settings):
            before = lines[0]["settings"]
            changed = next(key for key in (*settings, *before) if settings.get(key) != before.get(key))
            said = "" if changed == "system" else f"={settings.get(changed)!r}, was {before.get(changed)!r}"
            raise ValueError(f"{path}: begun with another {changed}{said}; nearest is another --output")
        self.entries: list[dict[str, Any]] = lines[1:]

    def append(self, entry: Mapping[str, Any]) -> None:
        """Write one line to the disk, after a first line with the settings of all requests."""
        if self._first is not None:
            self._file.write(f"{json.dumps(self._first)}\n")
            self._first = None
        self._file.write(f"{json.dumps(entry)}\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Release the log for other processes."""
        self._file.close()

    def tries(self, base: Base) -> int:
        """How often a base prompt was asked."""
        return sum(entry["base"] == base.text and entry["index"] == base.index for entry in self.entries)

    def accepted(self, task: str, base: Base) -> Story | None:
        """The story that was accepted for a base prompt."""
        for entry in self.entries:
            if entry["base"] == base.text and entry["index"] == base.index and not entry["faults"]:
                return parse_answer(task, *text_of(entry["answer"]))
        return None


def write_story(chat: Chat, task: str, base: Base, log: Log, taken: Mapping[str, int], seed: int, tries: int) -> Story | None:
    """Ask until a story passes; None after `tries` failed answers. Every answer is logged, with its faults.

    Raises:
        ValueError: if the model cannot be reached.
    """
    messages: list[Message] = [{"role": "system", "content": ASKS[task]}, {"role": "user", "content": f"Base prompt: {base.text}"}]
    before = log.tries(base)
    for attempt in range(before, before + tries):
        request = chat.request(messages, seed + 1000 * attempt + base.index)
        start = time.monotonic()
        answer = chat.answer(request)
        answer_text, stopped = text_of(answer)
        try:
            story = parse_answer(task, answer_text, stopped)
            faults = faults_in(task, story, base, taken)
        except ValueError as error:
            faults = [str(error)]
        entry = {"index": base.index, "id": base.id, "base": base.text, "try": attempt + 1, "faults": faults}
        log.append(entry | {"seconds": round(time.monotonic() - start, 3), "request": request, "answer": answer})
        if not faults:
            return story
        fault_lines = "\n".join(f"- {fault}" for fault in faults)
        messages += [{"role": "assistant", "content": answer_text}]
        messages += [{"role": "user", "content": f"This is wrong:\n{fault_lines}\nAnswer again with the whole JSON object, mended."}]
    return None


def build(
    chat: Chat, task: str, bases: Sequence[Base], output: Path, log: Log, *, seed: int = 0, tries: int = 5, duration_s: float = SCENE_S
) -> Iterator[str]:
    """Make the stories that the log lacks, and rewrite the output after each; yields one line of progress per base prompt.

    Raises:
        ValueError: at the end, naming the base prompts without a story.
    """
    done: dict[int, Story] = {}
    taken: dict[str, int] = {}
    for base in bases:
        known = log.accepted(task, base)
        if known is not None:
            done[base.index], taken[known.subject or known.text] = known, base.index
    for base in bases:
        story, how = done.get(base.index), "kept"
        if story is None:
            story, how = write_story(chat, task, base, log, taken, seed, tries), "made"
        if story is None:
            how = f"refused {tries} times"
        else:
            done[base.index], taken[story.subject or story.text] = story, base.index
        write_set(output, (PromptLine(prompt_of(output.stem, task, done[index], index, duration_s), VERSION) for index in sorted(done)))
        yield f"[{base.index + 1}/{len(bases)}] {base.id}: {how}"
    lacking = [base.id for base in bases if base.index not in done]
    if lacking:
        shown = ", ".join(lacking[:5])
        raise ValueError(f"{output}: {len(lacking)} of {len(bases)} base prompts have no story ({shown}); the same command asks again")


@dataclass(frozen=True)
class ModelChoice:
    """The language model and its settings.

    Attributes:
        endpoint: an OpenAI-compatible server, up to and with /v1.
        model: the model's name at the endpoint.
        local: a transformers model instead: a folder or a name on the hub.
        temperature: 0 is greedy decoding.
        max_tokens: longest answer in tokens.
        extra: more entries of every request as a JSON object; null removes one.
        key_variable: the environment variable that holds the endpoint's key.
    """

    endpoint: str = ""
    model: str = ""
    local: str = ""
    temperature: float = 0.0
    max_tokens: int = 1500
    extra: str = "{}"
    key_variable: str = "OPENAI_API_KEY"

    def body(self) -> dict[str, Any]:
        """Entries of every request. Raises ValueError in one line for invalid settings."""
        if bool(self.endpoint) == bool(self.local):
            raise ValueError("endpoint=URL model=NAME, or local=MODEL: exactly one of the two")
        if self.endpoint and not self.model:
            raise ValueError("endpoint=: model=NAME is missing, the name that the server knows")
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens={self.max_tokens}: at least 1")
        try:
            extra = json.loads(self.extra)
        except json.JSONDecodeError as error:
            raise ValueError(f"extra={self.extra}: not JSON ({error.msg}); nearest is '{{\"top_p\": 0.9}}'") from None
        if not isinstance(extra, dict) or set(extra) & {"messages", "model", "seed", "stream"}:
            raise ValueError(f"extra={self.extra}: an object of request entries other than messages, model, seed and stream")
        if extra and self.local:
            raise ValueError(f"extra={self.extra}: a local model takes temperature= and max_tokens= only; nearest is to leave it out")
        return {"temperature": self.temperature, "max_tokens": self.max_tokens, **extra}

    def chat(self, body: Mapping[str, Any]) -> Chat:
        """The model that answers."""
        return Local(self.local, body) if self.local else Endpoint(self.endpoint, self.model, body, key_variable=self.key_variable)


def shots(
    base: Path,
    /,
    task: Literal["recall", "hard", "smooth", "long"],
    asked: ModelChoice = ModelChoice(),
    seed: int = 0,
    tries: int = 5,
    first: int | None = None,
    duration: float | None = None,
    *,
    output: Path,
) -> Iterator[str]:
    """Make a prompt set from base prompts with a language model, every rule checked by code.

    Every request and answer is kept beside the output in OUTPUT.log.jsonl; started again, the command does not repeat accepted requests.

        echo-harness data shots base.txt task=recall endpoint=http://localhost:8000/v1 model=NAME --output recall.jsonl
        echo-harness data shots base.txt task=hard local=Qwen/Qwen2.5-7B-Instruct --output hard.jsonl

    Args:
        base: base prompts: a text file of lines, or JSONL.
        task: kind of set; long expands a base prompt into one detailed description.
        asked: the model and its settings.
        seed: the model's random seed.
        tries: answers per base prompt before it is left out.
        first: only this many base prompts, from the top.
        duration: seconds of a long prompt, 60 by default.
        output: the prompt set, JSONL.
    """
    body = asked.body()
    if output.suffix != ".jsonl":
        raise ValueError(f"--output {output}: a prompt set is JSONL; nearest is {output.with_suffix('.jsonl')}")
    if tries < 1:
        raise ValueError(f"tries={tries}: at least 1")
    check_duration(duration)
    if duration is not None and task != "long":
        raise ValueError(f"duration=: scenes of {task} last {SCENE_S:g} s; nearest is task=long")
    bases = load_bases(base)
    if first is not None and not 1 <= first <= len(bases):
        raise ValueError(f"first={first}: {base} has {len(bases)}; nearest is {min(max(first, 1), len(bases))}")
    model = asked.model if asked.endpoint else model_name(asked.local)
    log = Log(output.with_suffix(".log.jsonl"), {"task": task, "model": model, "seed": seed, **body, "system": ASKS[task]})
    try:
        chat = asked.chat(body)
        usual_s = LONE_S if task == "long" else SCENE_S
        duration_s = usual_s if duration is None else duration
        try:
            yield from build(chat, task, bases[:first], output, log, seed=seed, tries=tries, duration_s=duration_s)
        except ValueError as error:
            raise Unfinished(str(error)) from error
    finally:
        log.close()

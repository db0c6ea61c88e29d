"""Writing of prompt sets: a JSON line for each prompt, which `echo.scene.load_prompts` reads."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from echo.files import write_atomic
from echo.scene import Prompt, TagMeaning


@dataclass(frozen=True)
class PromptLine:
    """A line of a prompt set. version: of the code that made it. subtitles: of an imported file. Runs ignore both."""

    prompt: Prompt
    version: int | None = None
    subtitles: tuple[str, ...] = ()

    @property
    def json(self) -> str:
        """The line, without empty fields."""
        prompt, meaning = self.prompt, self.prompt.tag_meaning
        always = {"id": prompt.id, "scenes": prompt.scenes, "durations": prompt.durations_s, "tags": prompt.tags}
        rest = {"tag_meaning": meaning, "recalls": prompt.recalls, "version": self.version, "subtitles": self.subtitles}
        return json.dumps(always | {key: value for key, value in rest.items() if value not in (None, ())})


def entered(name: str, scenes: Iterable[str], duration_s: float, tags: tuple[str, ...]) -> Prompt:
    """A prompt with scenes of one length, whose tags name the transition into each scene."""
    texts = tuple(scenes)
    return Prompt(name, texts, (duration_s,) * len(texts), tags, TagMeaning.enter)


def write_set(path: Path, lines: Iterable[PromptLine]) -> None:
    """Write a prompt set atomically, so that a kill leaves the old file or the new one."""
    write_atomic(path, "".join(f"{line.json}\n" for line in lines).encode())

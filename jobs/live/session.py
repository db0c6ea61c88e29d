"""A live session: a rollout that takes its prompts while it runs, and leaves the script that replays it as a normal run.

It has no page and no clock, only calls. One thread makes all of them, since a model computes one thing at a time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shlex
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from unicodedata import category

import numpy as np
from numpy.typing import NDArray

from data.prompt_sets import PromptLine, write_set
from echo.backbone.interface import reader
from echo.cache.plan import Plan
from echo.cache.policy import script_of
from echo.files import write_atomic
from echo.generate import begin
from echo.refusals import nearest
from echo.routing import Router, Routing, enter, oldest
from echo.scene import FPS, TAGS, Prompt, SceneStart, TagMeaning, Transition, block_s
from jobs.spec.plan import Job
from jobs.work.blocks import developed
from jobs.work.video import VideoWriter

if TYPE_CHECKING:
    from echo.backbone.interface import VideoModel

Frames = NDArray[np.uint8]
MOST_BYTES = 10_000
"""Most bytes of a prompt."""
TAG = {transition: tag for tag, transition in TAGS.items()}


class Refused(ValueError):
    """The policy's memory cannot enter the requested scene; the session goes on with the running one."""


@dataclass(frozen=True)
class LiveOrder:
    """A checked command line. words: settings of run.py that make the job."""

    job: Job
    words: tuple[str, ...]
    name: str
    host: str
    port: int | None
    save: Path
    first: Prompt | None
    threshold: float | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Scene:
    """A scene of the session: its prompt, its first block and its transition. routed: the router chose the transition."""

    number: int
    text: str
    start: SceneStart
    routed: bool


@dataclass(frozen=True)
class LiveBlock:
    """One block: uint8 frames [T, H, W, 3], its plan, and the milliseconds that it took, decoding included."""

    index: int
    scene: int
    frames_THWC: Frames
    plan: Plan
    made_ms: float


@dataclass(frozen=True)
class Saved:
    """A saved session: the video, its script as a prompt set of one, the trace, facts, and the command that makes the same video."""

    video: Path
    script: Path
    trace: Path
    facts: Path
    command: str
    latents_sha256: str

    @property
    def files(self) -> tuple[Path, ...]:
        """All four files."""
        return self.video, self.script, self.trace, self.facts


def refuse(job: Job) -> None:
    """Raise ValueError if a job cannot be live: its policy renders, or its router reads later scenes or overrules named transitions."""
    policy, name = job.policy, job.config.method.name
    if job.rendered:
        raise ValueError(f"method={name}: renders a film whose script is known beforehand; nearest that is live is method=oracle")
    routing = policy.routed_by
    if routing is not None and not routing.causal:
        raise ValueError(f"method={name}: its router reads scenes that nobody has said yet; nearest is method.routing.causal=true")
    if routing is not None and routing.router is not Router.tags:
        raise ValueError(f"method={name}: its router overrules whoever names a transition; nearest is method.routing.router=tags")


class Session:
    """A rollout of one video whose script grows while it runs.

    >>> session = Session(job, backbone, words=["method=echo"])            # doctest: +SKIP
    >>> session.say("a red ball moving left over a plain meadow")           # doctest: +SKIP
    >>> made = session.next_block()                                         # doctest: +SKIP
    """

    def __init__(
        self,
        job: Job,
        backbone: VideoModel,
        name: str = "live",
        words: Sequence[str] = (),
        threshold: float | None = None,
        folder: Path | None = None,
    ) -> None:
        """Prepare; nothing is computed.

        Args:
            job: a checked job; its prompts are not used.
            backbone: the job's backbone, loaded.
            name: the prompt's id, which seeds its noise.
            words: settings that make the job from run.py's defaults, for the command that replays the session.
            threshold: least similarity of a text for automatic smooth transitions and recalls; None takes the method's own two.
            folder: the folder of saved files. It holds script and facts from the first block on, so that their command can make the
                video again however the process ends; with None, nothing is written unless `save` is given a folder.

        Raises:
            ValueError: the job cannot be live (`refuse`).
        """
        refuse(job)
        self.job, self.backbone, self.name, self.words = job, backbone, name, tuple(words)
        settings = job.policy.routed_by or Routing(causal=True)
        self._routing = settings if threshold is None else replace(settings, threshold_smooth=threshold, threshold_recall=threshold)
        self._embed = reader(backbone.text)
        repeat = job.config.noise.repeat_initial
        self._rollout = begin(backbone, job.policy, [name], job.config.seed, repeat_initial_noise=repeat)
        self._stream = backbone.codec.stream()
        self.scenes: list[Scene] = []
        self.pending: Scene | None = None
        self._hash = hashlib.sha256()
        self._trace: list[str] = []
        self._film = tempfile.TemporaryFile(prefix="echo-live-")  # noqa: SIM115 - open as long as the session is
        self._bytes = 0
        self._shapes: list[tuple[int, ...]] = []
        self.folder, self.unsaved = folder, 0

    @property
    def blocks(self) -> int:
        """How many blocks have been made."""
        return len(self._shapes)

    @property
    def latents_sha256(self) -> str:
        """SHA-256 of all latents so far, like the one in a run's record."""
        return self._hash.hexdigest()

    @property
    def pool(self) -> range:
        """Scenes that a recall can name now: those that have begun, as far back as the policy remembers."""
        if not self.job.policy.recalls:
            return range(0)
        return range(oldest(len(self.scenes), self._routing), len(self.scenes))

    def say(self, text: str, transition: Transition | str | None = None, recalls: int | None = None) -> Scene:
        """Begin a scene with the next block; it replaces a scene that was requested since the last block.

        Args:
            text: the prompt.
            transition: its transition; None chooses one from the texts. The first scene has none.
            recalls: the scene that a recall brings back; None takes the one with the most similar text.

        Raises:
            ValueError: in one line; an earlier request stands.
        """
        text = " ".join(text.split())
        if not text:
            raise ValueError("nothing was said: a prompt is a sentence")
        if len(written := text.encode(errors="replace")) > MOST_BYTES:
            raise ValueError(f"a prompt of {len(written)} bytes; {MOST_BYTES} are the most")
        odd = next((character for character in text if category(character) in ("Cc", "Cs")), None)
        if odd is not None:
            raise ValueError(f"a prompt with {ascii(odd)}, a control character or half of one; nearest is to leave it out")
        named = None if transition is None else _transition(transition)
        self.backbone.text.check([text])
        start = self._enter(text, named, recalls)
        scene = Scene(len(self.scenes), text, start, transition is None and recalls is None)
        rows = self.backbone.text.encode([text]).to(self.backbone.device, self.backbone.dtype)
        self._rollout.switch(rows, start.transition, start.recalls, start.jump)
        self.pending = scene
        return scene

    def _enter(self, text: str, transition: Transition | None, recalls: int | None) -> SceneStart:
        if recalls is not None:
            transition = transition or Transition.recall
            if transition is not Transition.recall:
                raise ValueError(f"scene {recalls + 1} is named and {transition} recalls none; nearest is recall")
        if transition is Transition.recall and not self.job.policy.recalls:
            raise ValueError(f"method={self.job.config.method.name}: keeps no ended scene to recall; nearest is smooth or hard here")
        if not self.scenes:
            if transition is Transition.recall:
                raise ValueError("recall: nothing has been shown yet; nearest is a first scene without a transition")
            return SceneStart(0)
        texts, starts = [*(scene.text for scene in self.scenes), text], [scene.start for scene in self.scenes]
        policy = self.job.policy
        if policy.routed_by is None and transition is not None:
            return SceneStart(self.blocks, transition)
        way, target, jump = enter(texts, starts, transition, self._routing, self._embed, recalls, policy.recalls)
        return SceneStart(self.blocks, way) if policy.routed_by is None else SceneStart(self.blocks, way, target, jump)

    def next_block(self) -> LiveBlock:
        """Make one block.

        Raises:
            Refused: the memory cannot enter the requested scene; the next call goes on with the running one.
            ValueError: there is no scene yet, or the policy cannot make so long a video.
        """
        if self.pending is None and not self.scenes:
            raise ValueError("no scene yet: say a first prompt")
        self.job.policy.check(self.backbone.geometry, self.blocks + 1)
        begun = time.perf_counter()
        said, self.pending = self.pending, None
        try:
            block = self._rollout.next()
        except ValueError as error:
            if said is None:
                raise
            raise Refused(f"scene {said.number + 1} is not begun: {error}") from error
        part = developed(block, [0], self._stream)
        (content,), (frames,) = part.content(), part.frames()
        self._film.seek(self._bytes)  # a reader may have stopped anywhere
        self._film.write(np.ascontiguousarray(frames).tobytes())
        self._film.flush()  # a full disk raises here, with the session as it was before this block
        if said is not None:
            self.scenes.append(replace(said, start=replace(said.start, block=block.index)))
        self._hash.update(content)
        self._trace.append(json.dumps(part.plan))
        self._shapes.append(frames.shape)
        self._bytes += frames.size
        self.unsaved += 1
        if self.folder is not None:
            with contextlib.suppress(OSError):  # a full disk does not stop the video
                self._note(self.folder)
        return LiveBlock(block.index, block.scene, frames, block.plan, 1e3 * (time.perf_counter() - begun))

    def follow(self, prompt: Prompt) -> Iterator[LiveBlock]:
        """Yield the blocks of a script, after which the session goes on with live prompts.

        Raises:
            ValueError: before the first block, if the session has begun, has another name, or the script cannot be run.
        """
        if self.blocks or prompt.id != self.name:
            raise ValueError(f"script {prompt.id!r}: followed from the beginning of a session of its own id, not of {self.name!r}")
        self.backbone.text.check(prompt.scenes)
        script = script_of(prompt, self.job.policy, self.backbone.geometry.frames_per_block, self._embed)
        for text, start, length in zip(prompt.scenes, script.starts, script.lengths(), strict=True):
            self.say(text, start.transition, start.recalls)
            for _ in range(length):
                yield self.next_block()

    def script(self) -> Prompt:
        """The session so far as a prompt. Raises ValueError before the first block."""
        if not self.blocks:
            raise ValueError("nothing to save: no block has been made")
        ends = [*(scene.start.block for scene in self.scenes[1:]), self.blocks]
        entered = [scene.start.transition for scene in self.scenes]
        recalls = tuple(scene.start.recalls for scene in self.scenes)
        seconds = block_s(self.backbone.geometry.frames_per_block)
        return Prompt(
            self.name, tuple(scene.text for scene in self.scenes),
            tuple((end - scene.start.block) * seconds for scene, end in zip(self.scenes, ends, strict=True)),
            tuple("" if transition is None else TAG[transition] for transition in entered),
            TagMeaning.enter, () if set(recalls) == {None} else recalls,
        )  # fmt: skip

    def film(self) -> Iterator[Frames]:
        """All frames so far, block by block, from their temporary file."""
        self._film.seek(0)
        for shape in self._shapes:
            yield np.frombuffer(self._film.read(int(np.prod(shape))), np.uint8).reshape(shape)

    def save(self, folder: Path | None = None) -> Saved:
        """Write video, script, trace and facts, into the session's own folder or another; the session can go on.

        Raises:
            ValueError: before the first block, or without any folder.
            OSError: if the folder cannot be written.
        """
        folder, video = folder or self.folder, self.job.config.video
        if folder is None:
            raise ValueError("nowhere to save: the session has no folder of its own")
        saved = self._note(folder)
        with VideoWriter(saved.video, fps=FPS, height_px=video.height_px, crf=video.crf) as writer:
            for frames in self.film():
                writer.write(frames)
        write_atomic(saved.trace, "".join(line + "\n" for line in self._trace).encode())
        self.unsaved = 0
        return saved

    def _note(self, folder: Path) -> Saved:
        prompt = self.script()
        folder.mkdir(parents=True, exist_ok=True)
        script = folder / f"{self.name}.jsonl"
        command = self.command(script)
        saved = Saved(
            folder / f"{self.name}.mp4", script, folder / f"{self.name}.trace.jsonl", folder / "session.json", command, self.latents_sha256
        )
        write_set(script, [PromptLine(prompt, 1)])
        scenes = [{"text": one.text, "routed": one.routed, "jump": one.start.jump, "block": one.start.block} for one in self.scenes]
        facts = {"v": 1, "command": command, "latents_sha256": saved.latents_sha256, "blocks": self.blocks, "scenes": scenes}
        write_atomic(saved.facts, (json.dumps(facts, indent=1, ensure_ascii=False) + "\n").encode())
        return saved

    def command(self, script: Path) -> str:
        """The command that makes the same latents and video as a normal run, to be given in the repository's folder."""
        path = str(script.absolute())
        if not re.fullmatch(r"[\w./-]+", path):
            path = "'" + path.replace("'", "\\'") + "'"
        fixed = ["task.name=live", f"task.prompt_set={path}", "prompts=1", "batch=1", "eval=none"]
        return shlex.join(["python", "run.py", *self.words, *fixed])

    def close(self) -> None:
        """Remove the temporary file of frames."""
        self._film.close()


def _transition(word: str) -> Transition:
    if word not in Transition.__members__:
        raise ValueError(f"transition {word!r}: nearest is {nearest(word, Transition)!r} of {', '.join(Transition)}")
    return Transition(word)

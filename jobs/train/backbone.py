"""Train the tiny backbone on the small world. It resumes by itself; the same seed gives the same data."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import torch._dynamo
from torch import Tensor, nn

from data.world import render
from data.world.words import LIT, VOCABULARY
from echo.backbone import load
from echo.backbone.parts.codec import CHANNELS, SIDE, PatchCodec
from echo.backbone.parts.text import WordEncoder
from echo.backbone.wan import WanConfig, WanModel
from echo.files import ROOT
from echo.geometry import PATCH, Geometry
from echo.refusals import Unfinished
from jobs.train import checkpoint, processes
from jobs.train.data import BLOCK_FRAMES, FRAMES_PER_STEP, fit_codec, make_batch
from jobs.train.teacher_forcing import loss_of

TEACHER = ROOT / "results" / "training" / "teacher"
CURVE = ROOT / "docs" / "data" / "training.jsonl"
MIB_LIMIT = 12


@dataclass(frozen=True)
class BackboneTraining:
    """Everything on which the trained weights depend.

    plan: "0:6200,800:4800" means: first planned for 6,200 steps and, from step 800 on, for 4,800. Learning rate and clips follow the
    finished share of the plan in force, so the whole plan is needed to repeat the run. start: weights from which training continues in
    the world under all lights; by default it begins from random weights, by day.
    """

    seed: int = 0
    plan: str = "0:6200,800:4800,1600:3800"
    frames_per_step: int = FRAMES_PER_STEP
    dim: int = 192
    heads: int = 6
    layers: int = 6
    ffn_dim: int = 768
    freq_dim: int = 128
    text_dim: int = 64
    text_len: int = 8
    learning_rate: float = 2e-3
    warm_up: int = 100
    ema: float = 0.999
    weight_decay: float = 0.01
    start: str = ""

    def __post_init__(self) -> None:
        """Raise ValueError for a plan that is malformed, does not start at 0, or does not increase."""
        starts = [start for start, _ in self.plans()]
        if starts[0] != 0 or starts != sorted(set(starts)):
            raise ValueError(f"plan {self.plan!r}: its first part starts at step 0 and the others later and later; nearest: 0:{self.steps}")

    def plans(self) -> list[tuple[int, int]]:
        """(first step, steps planned in total) of each part of the plan. Raises ValueError if it is malformed."""
        try:
            return [(int(start), int(steps)) for start, _, steps in (part.partition(":") for part in self.plan.split(","))]
        except ValueError:
            raise ValueError(f"plan {self.plan!r}: parts START:STEPS between commas, as in 0:3800") from None

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.plans()[-1][1]

    def steps_at(self, step: int) -> int:
        """Total steps of the plan in force at `step`."""
        return [steps for start, steps in self.plans() if start <= step][-1]

    def wan(self) -> WanConfig:
        """Sizes of the backbone."""
        return WanConfig(self.dim, self.ffn_dim, self.heads, self.layers, self.freq_dim, self.text_dim, self.text_len, CHANNELS, CHANNELS)


class Trainer:
    """Backbone, word vectors, their moving averages and the optimizer, at some step."""

    def __init__(self, settings: BackboneTraining, folder: Path, device: torch.device, share: tuple[int, int] = (0, 1)) -> None:
        """share: (rank, number of processes); each computes a part of every step, and gradients are added up."""
        self.settings = settings
        self.share = share
        self.folder = folder
        self.device = device
        torch.manual_seed(settings.seed)
        self.model = WanModel(settings.wan())
        self.text = WordEncoder(LIT if settings.start else VOCABULARY, settings.text_dim, settings.text_len)
        _initialise(self.model)
        self.codec: PatchCodec = self._start(load.load(settings.start)) if settings.start else fit_codec()
        self.modules = nn.ModuleDict({"model": self.model, "text": self.text}).to(device)
        self.parameters = list(self.modules.parameters())
        self.average = [parameter.detach().clone() for parameter in self.parameters]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in self.parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
                {"params": [p for p in self.parameters if p.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=settings.learning_rate,
            betas=(0.9, 0.95),
        )
        self.step = 0
        self.clips = 0
        self.seconds = 0.0
        self.loss = float("nan")

    def _start(self, known: load.Backbone) -> PatchCodec:
        """Go on from a backbone that knows the world by day; words that it does not know mean nothing yet. Its codec."""
        self.model.load_state_dict(known.model.state_dict())
        with torch.no_grad():
            self.text.embedding.weight.mul_(0.1)[: len(known.text.embedding.weight)] = known.text.embedding.weight
        return known.codec

    def train_step(self) -> tuple[float, int]:
        """Make one step; returns its loss and the number of blocks of its clips."""
        settings = self.settings
        plan = settings.steps_at(self.step), settings.frames_per_step
        batch = make_batch(self.codec, settings.seed, self.step, *plan, self.share, bool(settings.start))
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rate * _rate(self.step, settings)
        loss = loss_of(self.model, self.text, batch, self.device)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        loss = processes.add_up(loss.detach(), self.parameters, self.share[1])
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        checkpoint.follow(self.average, self.parameters, self.step, settings.ema)
        self.step += 1
        self.clips += batch.size
        return float(loss), len(batch.gaps)

    def save(self) -> None:
        """Write the checkpoint."""
        state = {
            "settings": asdict(self.settings), "version": render.VERSION, "step": self.step, "clips": self.clips,
            "seconds": self.seconds, "loss": self.loss, "modules": self.modules.state_dict(),
            "average": self.average, "optimizer": self.optimizer.state_dict(),
        }  # fmt: skip
        checkpoint.save(self.folder, state)

    def resume(self, replan: int | None = None) -> None:
        """Continue from the checkpoint in the folder, if there is one.

        replan: new total number of steps from there on, recorded in the plan. Raises ValueError if the checkpoint was made with other
        settings or on another version of the world.
        """
        fixed = asdict(self.settings) | {"version": render.VERSION}
        if replan:
            del fixed["plan"]
        state = checkpoint.resume(self.folder, fixed, self.device)
        if state is None:
            return
        self.modules.load_state_dict(state["modules"])
        torch._foreach_copy_(self.average, state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.clips, self.seconds, self.loss = (state[name] for name in ("step", "clips", "seconds", "loss"))
        if replan:
            plans = BackboneTraining(plan=state["settings"]["plan"]).plans()
            known = [f"{start}:{steps}" for start, steps in plans if start < self.step]
            last = "" if BackboneTraining(plan=",".join(known)).steps == replan else f",{self.step}:{replan}"
            self.settings = replace(self.settings, plan=",".join(known) + last)

    def averaged(self) -> tuple[WanModel, WordEncoder]:
        """Copies of backbone and word vectors with the averaged weights, which are shipped."""
        modules = copy.deepcopy(self.modules)
        with torch.no_grad():
            torch._foreach_copy_(list[Tensor](modules.parameters()), self.average)
        model, text = modules["model"], modules["text"]
        assert isinstance(model, WanModel) and isinstance(text, WordEncoder)
        return model.cpu(), text.cpu()


def _initialise(model: nn.Module) -> None:
    """Wan's initialisation: Xavier for linear layers, zero biases, a zero head."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
            if name == "head.head":
                nn.init.zeros_(module.weight)


def _rate(step: int, settings: BackboneTraining) -> float:
    """Share of the learning rate at `step`: linear warm-up, then a cosine down to 2 %."""
    if step < settings.warm_up:
        return (step + 1) / settings.warm_up
    done = (step - settings.warm_up) / max(1, settings.steps_at(step) - settings.warm_up)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def train(trainer: Trainer, save_every: int, until: int | None = None, keep_every: int = 0) -> None:
    """Run to the last step, or only to `until`; checkpoint every `save_every` steps and log every ten as a line of JSON.

    keep_every: also keep weights every so many steps in folders of their own (0: none).
    """
    recent: list[tuple[float, int]] = []
    mark = time.monotonic()
    last = min(until or trainer.settings.steps, trainer.settings.steps)
    while trainer.step < last:
        recent.append(trainer.train_step())
        trainer.seconds += time.monotonic() - mark
        mark = time.monotonic()
        if trainer.step % 10 == 0:
            trainer.loss = _smooth(trainer.loss, [loss for loss, _ in recent])
            record = {"step": trainer.step, "loss": round(trainer.loss, 5), "seconds": round(trainer.seconds, 1)}
            for blocks in sorted({blocks for _, blocks in recent}):
                mine = [loss for loss, length in recent if length == blocks]
                record[f"loss_{blocks}_blocks"] = round(sum(mine) / len(mine), 5)
            if trainer.share[0] == 0:
                checkpoint.log(trainer.folder, record | {"clips": trainer.clips})
            recent.clear()
        if trainer.share[0] == 0 and (trainer.step % save_every == 0 or trainer.step == last):
            trainer.save()
        if trainer.share[0] == 0 and keep_every and trainer.step % keep_every == 0:
            export_weights(trainer, trainer.folder / f"step-{trainer.step}")


def _smooth(before: float, losses: Iterable[float]) -> float:
    """Running mean of the loss over about a hundred steps."""
    for loss in losses:
        before = loss if math.isnan(before) else 0.99 * before + 0.01 * loss
    return before


def export_weights(trainer: Trainer, folder: Path) -> None:
    """Write model.safetensors and provenance.json of the averaged weights. Raises ValueError above 12 MiB."""
    model, text = trainer.averaged()
    sizes = model.config
    side = render.SIZE // (SIDE * PATCH[1])
    geometry = Geometry(sizes.layers, sizes.heads, sizes.head_dim, side, side, sizes.in_channels)
    mib = 2 * sum(parameter.numel() for parameter in model.parameters()) / 2**20
    if mib > MIB_LIMIT:
        raise ValueError(f"weights take {mib:.1f} MiB; at most {MIB_LIMIT} MiB are shipped, so choose a smaller dim=")
    load.save(folder / "model.safetensors", model, text, trainer.codec, geometry)
    facts = {
        "settings": asdict(trainer.settings), "steps_done": trainer.step,
        "loss": round(trainer.loss, 5), "seen_clips": trainer.clips, "wall_time_s": round(trainer.seconds),
        **checkpoint.describe(trainer.device), "commit": checkpoint.started_at(trainer.folder), "mib": round(mib, 2),
    }  # fmt: skip
    checkpoint.write_record(folder, facts)


def _settings_of(folder: Path) -> BackboneTraining:
    """Settings of the checkpoint in `folder`. Raises ValueError if there is none."""
    path = checkpoint.place(folder)
    if not path.exists():
        raise ValueError(f"no checkpoint in {folder}; train first, without --export")
    return BackboneTraining(**torch.load(path, map_location="cpu", weights_only=True)["settings"])


@dataclass(frozen=True)
class Course:
    """How a training is carried out; the weights do not depend on it.

    Attributes:
        device: torch's name of the device.
        threads: threads of each process.
        processes: processes that share each step (gloo).
        save_every: steps from one checkpoint to the next.
        keep_every: also keep weights every so many steps, for a curve over training; 0 keeps none.
        replan: new total number of steps from the checkpoint on, recorded in the plan.
        until: stop at this step, without weights, and compare the log with `against`.
        against: log of the training with which `until` compares.
    """

    device: str = "cpu"
    threads: int = 1
    processes: int = 1
    save_every: int = 200
    keep_every: int = 0
    replan: int | None = None
    until: int | None = None
    against: Path = CURVE


def backbone(
    settings: BackboneTraining = BackboneTraining(),
    course: Course = Course(),
    *,
    folder: Path = Path("results/training"),
    output: Path = TEACHER,
    compile: bool = False,
    export: bool = False,
) -> Iterator[str]:
    """Train the tiny backbone on the embedded world, from its checkpoint if there is one, then write the weights.

        echo-harness train backbone processes=2 keep_every=800 --compile --folder results/training/teacher
        echo-harness train backbone until=500 processes=2 --compile --folder results/again

    Args:
        settings: everything on which the weights depend.
        course: how the training is carried out.
        folder: the folder of checkpoint and log.
        output: the folder of the weights.
        compile: fuse small operations (needs a C++ compiler; 20 % faster).
        export: only write the weights of the last checkpoint.
    """
    if not export:
        least = BLOCK_FRAMES * 20 * course.processes
        if settings.frames_per_step < least:
            rule = f"{course.processes} processes share at least {least} frames"
            raise ValueError(f"frames_per_step={settings.frames_per_step}: {rule}; nearest is frames_per_step={least}")
        processes.start(_run, (settings, course, folder, compile), course.processes)
    if course.until:
        yield compare(folder / "log.jsonl", course.against, course.until)
        return
    trainer = Trainer(_settings_of(folder), folder, torch.device("cpu"))
    trainer.resume()
    export_weights(trainer, output)


def curve(log: Path, until: int) -> dict[int, float]:
    """Smoothed loss by step, from a training log, up to and with step `until`."""
    lines = (json.loads(line) for line in log.read_text().splitlines())
    return {line["step"]: line["loss"] for line in lines if line["step"] <= until}


def compare(ours: Path, theirs: Path, until: int) -> str:
    """The difference of two loss curves in words. Raises Unfinished if points are missing or they differ by more than 1 % anywhere."""
    mine, known = curve(ours, until), curve(theirs, until)
    if not mine or mine.keys() != known.keys():
        missing = sorted(mine.keys() ^ known.keys())
        raise Unfinished(f"{ours} and {theirs} do not have the same steps up to {until}: {missing[:5] or 'none at all'}")
    parted = {step: abs(mine[step] / known[step] - 1) for step in sorted(mine)}
    worst = max(parted, key=lambda step: math.inf if math.isnan(parted[step]) else parted[step])
    mean = sum(parted.values()) / len(parted)
    told = f"{len(parted)} points to step {until}: largest difference {100 * parted[worst]:.3f} % (step {worst}), mean {100 * mean:.3f} %"
    if not all(share <= 0.01 for share in parted.values()):
        raise Unfinished(told)
    return told


def _run(rank: int, count: int, settings: BackboneTraining, course: Course, folder: Path, compile: bool) -> None:
    torch.set_num_threads(course.threads)
    trainer = Trainer(settings, folder, torch.device(course.device), (rank, count))
    trainer.resume(course.replan)
    checkpoint.started_at(folder)
    if compile:
        # One compilation per layer and clip length.
        torch._dynamo.config.recompile_limit = 64
        for block in trainer.model.blocks:
            block.compile(dynamic=False)
    train(trainer, course.save_every, course.until, course.keep_every)

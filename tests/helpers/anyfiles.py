"""A sound file of every kind that the project reads, and the commands that read it.

In words of a command `{folder}` is the folder of the sound files, `{file}` the one in question and `{out}` a folder for what comes out.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from shutil import copy, copytree

import torch
from safetensors.torch import load_file, save_file

from echo.files import ROOT
from jobs import cli
from tests.helpers import studies
from tests.helpers.checkpoints import FORMATS, write_parts
from tests.helpers.packages import write_metadata, write_package

SWEEP = "method=echo,infinity_rope task=hard seed=0 prompts=2 duration_scale=0.05 max_workers=1"
STORE = "--store {folder}/store"
PARTS = (
    "plan backbone=self_forcing geometry=tiny task=hard prompts=1 seed=0 method=echo store={out}/store "
    "task.prompt_set={folder}/prompts.jsonl "
    "backbone.parts.text={folder}/text backbone.parts.tokenizer={folder}/tokenizer.json backbone.parts.codec={folder}/vae "
)
SCORE = (
    "score {folder}/videos {folder}/prompts.jsonl task=hard weights=random dimensions=temporal_flickering "
    "--records {folder}/records --output {folder}/scores"
)
COLLECT = "study collect {folder}/answers key={folder}/page.key.json keep=all --output {out}/ratings.csv"
NETWORK = "backbone.weights={folder}/network.safetensors"
FETCHED = "data download prompts=echo_forcing checkpoints={folder}"
COMMANDS_OF_A_STORE = (
    f"status --failed {STORE}",
    f"tables --output {{out}}/tables {STORE}",
    f"verify {STORE}",
    f"report --output {{out}}/report {STORE}",
    f"claims ordering --output {{out}}/claims.json {STORE}",
    f"figures sheet task=hard every_s=2 --output {{out}}/sheet.png {STORE}",
    f"figures drift task=hard --output {{out}}/drift.png {STORE}",
    f"study build task=hard groups=1 --output {{out}}/study {STORE}",
    f"figures cache method=echo task=hard --output {{out}}/figures {STORE}",
    f"plan {SWEEP} store={{folder}}/store",
)


@dataclass(frozen=True)
class Kind:
    """Files of one kind: which of the sound ones, and the commands that read them, each of which may stand for all."""

    name: str
    files: tuple[str, ...]
    commands: tuple[str, ...]


@dataclass(frozen=True)
class Sound:
    """Sound files of some kinds in one folder. make: writes them into a folder that is there."""

    name: str
    make: Callable[[Path], object]
    kinds: tuple[Kind, ...]


def write_prompts(folder: Path) -> None:
    """The same two scenes in every format of a prompt set that is read."""
    lines = (ROOT / "data" / "prompts" / "hard.jsonl").read_text(encoding="utf-8").splitlines()[:3]
    (folder / "set.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "released.txt").write_text("a fox runs[10s#] | a fox sleeps[10s] ; a fox\na cat[5s@] | a dog[5s]\n", encoding="utf-8")
    (folder / "lines.txt").write_text("A fox runs over snow.\nA cat sleeps, curled up.\nIt rains.\n", encoding="utf-8")
    (folder / "table.csv").write_text('id,prompt,tag\n1,"A fox, running",x\n2,A cat,y\n', encoding="utf-8")
    rows = [{"prompt_en": "A fox runs", "dimension": ["motion"]}, {"prompt_en": "A cat", "dimension": []}]
    (folder / "list.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")


def write_store(folder: Path) -> None:
    """A store as the product makes it: two methods, two prompts, short videos; its submission; a claim and a launch of another machine."""
    words = [sys.executable, "run.py", *SWEEP.split(), f"store={folder / 'store'}", "-m"]
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True)
    run = next((folder / "store" / "runs").glob("tiny/hard/echo/*/*"))
    (run / "claims").mkdir(exist_ok=True)
    owner = {"host": "node7", "machine": "b", "pid": 12, "start": "1", "job": "77", "attempt": "a"}
    (run / "claims" / "0123456789abcdef0123.1").write_text(json.dumps(owner), encoding="utf-8")
    launch = {"v": 1, "argv": ["run.py"], "jobs": {"77": [["tiny/hard/echo/seed=0/0", "echo", None, 2, 2]]}}
    _carried_out(f"export --videos --store {folder / 'store'} --output {folder / 'lab.zip'}")
    (folder / "store" / "slurm" / "20260101-000000-aaaa").mkdir(parents=True)
    (folder / "store" / "slurm" / "20260101-000000-aaaa" / "launch.json").write_text(json.dumps(launch), encoding="utf-8")


def write_weights(folder: Path) -> None:
    """Parts of a backbone of Wan2.1's make in tiny sizes; its network in torch's format and in shards too; low-rank additions."""
    write_parts(folder)
    state = load_file(folder / "network.safetensors")
    for name, form in (("pt", "self_forcing"), ("shards", "diffusers_shards")):
        (folder / name).mkdir()
        FORMATS[form](folder / name, state)
    out, inner = state["blocks.0.ffn.0.weight"].shape
    pair = {"blocks.0.ffn.0.lora_A.weight": torch.ones(2, inner), "blocks.0.ffn.0.lora_B.weight": torch.ones(out, 2)}
    save_file(pair, folder / "lora.safetensors")


def write_embedded(folder: Path) -> None:
    """The embedded world's backbone and scorer."""
    for name in ("tiny", "scorer"):
        copy(ROOT / "data" / "weights" / name / "model.safetensors", folder / f"{name}.safetensors")


def write_study(folder: Path) -> None:
    """A rating page, its key, four raters' answers and the ratings."""
    made = studies.store(folder, count=2)
    _carried_out(f"study build groups=1 --output {folder}/page --store {made}")
    form = "title: Which is better?\nconsent: I agree.\ncriteria: {camera: Is it steady?}\nrater: PROLIFIC_PID\nfinish: https://example.org/a?b=c\n"
    (folder / "study.yaml").write_text(form, encoding="utf-8")
    (folder / "answers").mkdir()
    key = json.loads((folder / "page.key.json").read_text(encoding="utf-8"))
    for rater in range(4):
        content = studies.answers(
            key, f"{rater + 161:016x}", lambda group, shown, criterion, of=rater: 1 + (len(shown["method"] + criterion) + of) % 5
        )
        (folder / "answers" / f"{rater}.json").write_text(json.dumps(content), encoding="utf-8")
    _carried_out(f"study collect {folder}/answers key={folder}/page.key.json keep=all --output {folder}/ratings.csv")


def write_measured(folder: Path) -> None:
    """Speeds that the bench measured, a recorded case of the released code, and what a download wrote down."""
    copy(ROOT / "docs" / "data" / "bench_tiny_cpu.json", folder / "speed.json")
    for name in ("recall.npz", "toy_weights.npz", "meta.json"):
        copy(ROOT / "tests" / "golden" / name, folder / name)
    row = {"url": "u", "repo": None, "revision": "r", "file": "f", "license": None, "size_bytes": 1, "sha256": "0" * 64}
    row |= {"checked_against": "x", "changed_ns": 1}
    (folder / "manifest.json").write_text(json.dumps({"prompts/echo_forcing/prompts_hard.txt": row}), encoding="utf-8")


def write_foreign(folder: Path) -> None:
    """Another package with a policy and its preset."""
    write_metadata(write_package(folder))


def write_scored(folder: Path) -> None:
    """A folder of somebody's videos, scored once, with what the networks said and the scores."""
    (folder / "videos").mkdir()
    for number in range(2):
        studies.film(folder / "videos" / f"p-{number}.mp4", 60 + 20 * number, size=128)
        trace = [json.dumps({"block": block, "scene": block, "keys": [["f0", 0]]}) + "\n" for block in range(2)]
        (folder / "videos" / f"p-{number}.trace.jsonl").write_text("".join(trace), encoding="utf-8")
    lines = [{"id": f"p-{number}", "scenes": ["a fox", "a cat"], "durations": [0.75, 0.75], "tags": ["", "#"]} for number in range(2)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(line | {"tag_meaning": "enter"}) + "\n" for line in lines), encoding="utf-8")
    (folder / "list.csv").write_text("file,prompt,seed\np-0.mp4,p-0,0\np-1.mp4,p-1,0\n", encoding="utf-8")
    rows = [json.dumps({"file": f"p-{number}.mp4", "prompt": f"p-{number}", "seed": 0}) + "\n" for number in range(2)]
    (folder / "list.jsonl").write_text("".join(rows), encoding="utf-8")
    _carried_out(SCORE.format(folder=folder))


def _carried_out(words: str) -> None:
    assert cli.main(words.split()) == 0, words


def imported(format: str) -> tuple[str, ...]:
    """The command that imports a file of a format."""
    return (f"data import {{file}} format={format} --output {{out}}/set.jsonl",)


OF_A_STORE = {
    "run.json": "run.json",
    "wish": "asked/*.json",
    "attempt": "attempts/*.json",
    "records": "records/*.jsonl",
    "scores": "units/*.embedded-*.json",
    "trace": "units/*.trace.jsonl",
    "video": "units/*.mp4",
    "claim": "claims/*",
}
SOUND = (
    Sound("prompts", write_prompts, (
        Kind("prompt set", ("set.jsonl",), (
            "plan method=echo task=hard task.prompt_set={file} prompts=null seed=0 eval=none store={out}/store", *imported("jsonl"),
            "audit routers task.prompt_set={file} prompts=null features=idf --output {out}/routers.md",
        )),
        Kind("released prompts", ("released.txt",), imported("released tag_meaning=to_next")),
        Kind("lines of prompts", ("lines.txt",), imported("lines")),
        Kind("table of prompts", ("table.csv",), imported("csv column=prompt")),
        Kind("list of prompts", ("list.json",), imported("json column=prompt_en")),
    )),
    Sound("store", write_store, (
        *(Kind(name, (f"store/runs/*/*/*/*/*/{glob}",), COMMANDS_OF_A_STORE) for name, glob in OF_A_STORE.items()),
        Kind("sweep", ("store/sweeps/*.json",), COMMANDS_OF_A_STORE),
        Kind("table", ("store/tables/*.meta.json", "store/tables/*.csv"), COMMANDS_OF_A_STORE),
        Kind("launch", ("store/slurm/*/launch.json",), COMMANDS_OF_A_STORE),
        Kind("submission", ("lab.zip",), (
            "verify {file}", "verify {file} {folder}/store", "merge {file} --store {out}/store", "report --site {file} --output {out}/site",
        )),
    )),
    Sound("weights", write_weights, (
        Kind("network", ("network.safetensors",), (PARTS + NETWORK,)),
        Kind("torch file", ("pt/weights.pt",), (PARTS + "backbone.weights={folder}/pt/weights.pt",)),
        Kind("shards", ("shards/*.safetensors", "shards/*.json"), (PARTS + "backbone.weights={folder}/shards",)),
        Kind("additions", ("lora.safetensors",), (f"{PARTS}{NETWORK} backbone.lora={{folder}}/lora.safetensors",)),
        Kind("text encoder", ("text/*.json", "text/*.safetensors", "tokenizer.json"), (PARTS + NETWORK,)),
        Kind("codec", ("vae/*.json", "vae/*.safetensors"), (PARTS + NETWORK,)),
    )),
    Sound("embedded", write_embedded, (
        Kind("embedded weights", ("tiny.safetensors", "scorer.safetensors"), (
            "audit targets weights={folder}/tiny.safetensors scorer={folder}/scorer.safetensors methods=infinity_rope prompts=1 seconds=3 "
            "batch=1 --output {out}/targets.json",
        )),
    )),
    Sound("study", write_study, (
        Kind("answers", ("answers/*.json",), (COLLECT,)),
        Kind("key", ("page.key.json",), (COLLECT,)),
        Kind("ratings", ("ratings.csv",), (
            f"tables table4 table5 ratings={{file}} --output {{out}}/tables {STORE}",
            f"claims ordering ratings={{file}} --output {{out}}/claims.json {STORE}",
        )),
        Kind("form of a study", ("study.yaml",), (f"study build task=hard groups=1 --form {{file}} --output {{out}}/study {STORE}",)),
        Kind("prompt set of a store", ("prompts/hard.jsonl",), (
            f"study build task=hard groups=1 --output {{out}}/study {STORE}", f"report task=hard --output {{out}}/report {STORE}",
            f"figures sheet task=hard every_s=1 --output {{out}}/sheet.png {STORE}",
        )),
    )),
    Sound("measured", write_measured, (
        Kind("speeds", ("speed.json",), ("tables speed bench={file} --output {out}/tables",)),
        Kind("recorded case", ("recall.npz", "toy_weights.npz", "meta.json"), (
            "replay {folder}/recall.npz --weights {folder}/toy_weights.npz --meta {folder}/meta.json",
        )),
        Kind("manifest", ("manifest.json",), (f"{FETCHED} --dry-run",)),
    )),
    Sound("foreign", write_foreign, (
        Kind("preset", ("both_ends/conf/method/ends.yaml", "*.dist-info/*"), (
            "plan method=ends task=hard seed=0 eval=none store={out}/store", "trace method=ends task=hard blocks=4",
        )),
    )),
    Sound("scored", write_scored, (
        Kind("answers of networks", ("records/*/*.safetensors",), (SCORE,)),
        Kind("scores of a folder", ("scores/*.json",), (SCORE,)),
        Kind("manifest of videos", ("list.csv", "list.jsonl"), (SCORE + " manifest={file}",)),
        Kind("somebody's video", ("videos/*.mp4", "videos/*.jsonl", "prompts.jsonl"), (SCORE,)),
    )),
)  # fmt: skip


def copied(sound: Path, folder: Path) -> Path:
    """A copy of sound files; paths that starts of runs name lead into it."""
    copytree(sound, folder, symlinks=True)
    for path in folder.glob("store/runs/*/*/*/*/*/attempts/*.json"):
        path.write_bytes(path.read_bytes().replace(str(sound).encode(), str(folder).encode()))
    return folder

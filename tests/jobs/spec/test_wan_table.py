"""Every backbone of Wan2.1's make: its YAML, its files in the table of downloads, its blocks and steps, small files of its format."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from data import hub
from echo.backbone.checkpoints import transformer
from echo.backbone.real import RealBackbone
from echo.backbone.sizes import SIZES
from jobs.spec.compose import one
from jobs.spec.plan import prepare
from jobs.watch.forecast import plan
from jobs.work.models import parts_to_load
from tests.helpers.checkpoints import FORMATS, write_parts
from tests.helpers.toy import changed

LONGLIVE = {"weights": "longlive_base", "rank": 3}
ROWS: dict[str, dict[str, object]] = {
    "self_forcing": {"weights": "self_forcing"},
    "longlive": LONGLIVE,
    "causal_forcing": {"weights": "causal_forcing"},
    "infinite_forcing": {"weights": "infinite_forcing"},
    "causal_forcing_framewise": {"weights": "causal_forcing_framewise", "frames": 1},
    "causal_forcing_2step": {"weights": "causal_forcing_framewise", "frames": 1, "steps": (1000, 5000 / 6), "first": 4},
    "causal_forcing_1step": {"weights": "causal_forcing_framewise", "frames": 1, "steps": (1000,), "first": 4},
    "sgf_chunkwise": {"weights": "sgf"},
    "sgf_framewise": {"weights": "sgf", "frames": 1},
    "reward_forcing": {"weights": "self_forcing"},
    "causvid": {"weights": "causvid", "steps": (1000, 757, 522)},
    "memflow": LONGLIVE,
    "anchor_forcing": LONGLIVE,
}
"""Format of its file (`tests.helpers.checkpoints`), rank of its additions, blocks and timesteps where they are its own."""
USUAL = (1000, 937.5, 2500 / 3, 625)


def test_the_table_has_every_backbone_and_no_other() -> None:
    composed = {path.stem for path in Path("conf/backbone").glob("*.yaml")} if Path("conf").is_dir() else set(ROWS)
    assert set(hub.shipped().groups["backbone"]) == set(ROWS) == {name for name in composed if not name.startswith("tiny")}


def additions(path: Path, rank: int) -> dict[str, torch.Tensor]:
    """As LongLive's line saves them: peft's names, and no scale, since alpha is the rank."""
    generator, tensors = torch.Generator().manual_seed(2), {}
    for name, (rows, columns) in transformer.linear_layers(SIZES["tiny"].network).items():
        if name.startswith("blocks."):
            tensors[f"base_model.model.{name}.lora_A.weight"] = torch.randn(rank, columns, generator=generator) * 0.1
            tensors[f"base_model.model.{name}.lora_B.weight"] = torch.randn(rows, rank, generator=generator) * 0.1
    torch.save({"generator_lora": tensors, "step": 3000}, path)
    return tensors


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text encoder, tokenizer, codec and a prompt, the same for all."""
    return write_parts(tmp_path_factory.mktemp("parts"))


@pytest.mark.parametrize("name", ROWS)
def test_a_backbone_reads_small_files_of_its_format(name: str, parts: Path, tmp_path: Path) -> None:
    """Its YAML names just the files of its source; the network that it loads is what was written, additions summed by hand."""
    row = ROWS[name]
    words = [f"backbone={name}", "geometry=tiny", "method=self_forcing", "task=hard", "prompts=1", "checkpoints=CHECKPOINTS"]
    plain = one([*words, f"task.prompt_set={parts / 'prompts.jsonl'}", "backbone.dtype=float32", f"store={tmp_path / 'store'}"])
    config = plain["backbone"]
    own = {f"CHECKPOINTS/{wanted.target}" for wanted in hub.shipped().sources[name]}
    assert own == {config["weights"], config["lora"]} - {None} and (config["lora"] is not None) == ("rank" in row)
    state = transformer.random_network(SIZES["tiny"].network, torch.float32, "cpu", seed=4).state_dict()
    named = {"weights": FORMATS[str(row["weights"])](tmp_path, state), "parts.text": parts / "text"}
    named |= {"parts.tokenizer": parts / "tokenizer.json", "parts.codec": parts / "vae"}
    tensors = {}
    if "rank" in row:
        named["lora"] = tmp_path / "lora.pt"
        tensors = additions(named["lora"], int(str(row["rank"])))
    for key, path in named.items():
        plain = changed(plain, f"backbone.{key}", str(path))
    job = prepare(plain)
    backbone = RealBackbone(parts_to_load(job.config))
    loaded = transformer.load_network(named["weights"], named.get("lora"), SIZES["tiny"].network, torch.float32, "cpu").state_dict()
    for key, value in state.items():
        pair = [tensors.get(f"base_model.model.{key.removesuffix('.weight')}.lora_{side}.weight") for side in "BA"]
        expected = value if pair[0] is None else value + torch.einsum("or,ri->oi", *pair)
        gap = (loaded[key] - expected).abs()
        assert gap.max() < 1e-6, f"{key}: largest {gap.max():.1e}, mean {gap.mean():.1e}"
    assert len(tensors) == (40 if "rank" in row else 0)
    assert backbone.geometry.frames_per_block == row.get("frames", 3) and job.block_frames == 4 * backbone.geometry.frames_per_block
    assert backbone.schedule.timesteps == pytest.approx(row.get("steps", USUAL))
    assert len(backbone.schedule.of(0).timesteps) == row.get("first", len(backbone.schedule.timesteps))


@pytest.mark.parametrize("frames", [3, 1])
def test_all_can_be_planned_without_their_files(frames: int, tmp_path: Path) -> None:
    names = [name for name, row in ROWS.items() if row.get("frames", 3) == frames]
    words = [
        f"backbone={','.join(names)}",
        "task=long60",
        "prompts=1",
        "seed=0",
        f"store={tmp_path}",
        f"checkpoints={tmp_path / 'nowhere'}",
    ]
    lines = plan([*words, "method=echo", *(["method.anchors=14"] if frames == 1 else [])])
    count = len(names)
    assert any(line.endswith(f"{count} videos, 0 there, {count} to make ({count * 240 // frames} blocks)") for line in lines), lines
    for name in names:
        known = frames == 3 and "steps" not in ROWS[name]
        hours = "GPU-hours" if known else "unknown: give fps=N (pixel frames a second, scoring included)"
        (line,) = [line for line in lines if line.startswith(f"echo on {name}: 1 run, 1 of 1 videos missing, ")]
        assert line.endswith(hours) and f"data download backbone={name}" in lines[-1]

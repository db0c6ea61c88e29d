"""Files of a backbone with parts are judged when the command is checked: whole, by the sha256 that is known of them, with their prompts."""

from __future__ import annotations

import hashlib
import json
import random
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from data import hub
from data.hub import Table, published
from echo import files as house
from echo.backbone.sizes import SIZES
from jobs.spec import backbones
from jobs.spec.compose import one
from jobs.spec.plan import prepare
from tests.helpers.checkpoints import TEXT, write_parts
from tests.helpers.toy import changed, write_prompts

TINY = ["backbone=self_forcing", "geometry=tiny", "task=hard", "prompts=1"]


@pytest.fixture
def parts(tmp_path) -> Path:
    """All files of a tiny backbone, and a prompt of two scenes."""
    return write_parts(tmp_path)


def planned(parts: Path, *more: str):
    named = {"weights": "network.safetensors", "parts.text": "text", "parts.tokenizer": "tokenizer.json", "parts.codec": "vae"}
    places = [] if "weights=random" in more else [f"backbone.{key}={parts / name}" for key, name in named.items()]
    return prepare(one([*TINY, *places, f"task.prompt_set={parts / 'prompts.jsonl'}", f"store={parts / 'store'}", *more]))


def spoil(path: Path, name: str, change) -> None:
    tensors = load_file(path)
    tensors[name] = change(tensors[name])
    save_file(tensors, path, metadata={"format": "pt"})


def one_nan(tensor: torch.Tensor) -> torch.Tensor:
    tensor.view(-1)[-1] = torch.nan
    return tensor


DAMAGE = {
    "network": ("network.safetensors", "blocks.1.ffn.2.bias", one_nan, "blocks.1.ffn.2.bias holds a NaN or an infinity"),
    "network zeros": ("network.safetensors", "head.head.weight", torch.zeros_like, "head.head.weight is a matrix of zeros alone"),
    "codec": ("vae/diffusion_pytorch_model.safetensors", "decoder.conv_in.weight", one_nan, "decoder.conv_in.weight holds a NaN"),
    "text": ("text/model.safetensors", "encoder.final_layer_norm.weight", one_nan, "final_layer_norm.weight holds a NaN"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_part_that_is_damaged_inside_is_refused_before_any_work(name, parts):
    file, tensor, change, words = DAMAGE[name]
    assert planned(parts).asked
    spoil(parts / file, tensor, change)
    with pytest.raises(ValueError) as refusal:
        planned(parts)
    assert words in str(refusal.value) and str(parts / file.partition("/")[0]) in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize("key", ["weights", "lora"])
def test_random_damage_to_an_embedded_backbone_is_one_line_or_passes(key, plain, tmp_path):
    """The command's check reads headers alone; what is behind them is read when the backbone is loaded."""
    from echo.backbone.load import load

    sound = Path(plain["backbone"]["weights"])
    lora = tmp_path / "lora.safetensors"
    save_file({"blocks.0.ffn.0.lora_A.weight": torch.ones(2, 32), "blocks.0.ffn.0.lora_B.weight": torch.ones(64, 2)}, lora)
    damaged, draw, refused = tmp_path / "damaged.safetensors", random.Random(3), 0
    content = (sound if key == "weights" else lora).read_bytes()
    for _ in range(60):
        changed_bytes = bytearray(content)
        for _ in range(draw.choice((1, 1, 6))):
            start = draw.randrange(draw.choice((8, 400, int.from_bytes(content[:8], "little"))))
            changed_bytes[start : start + draw.choice((0, 1, 3))] = draw.randbytes(draw.choice((0, 1, 3)))
        damaged.write_bytes(changed_bytes)
        files = {"weights": str(sound), "lora": str(lora)} | {key: str(damaged)}
        config = changed(changed(plain, "backbone.weights", files["weights"]), "backbone.lora", files["lora"])
        for attempt in (partial(prepare, config), partial(load, files["weights"], lora=files["lora"])):
            try:
                attempt()
            except ValueError as error:
                refused += 1
                assert "\n" not in str(error) and str(damaged) in str(error)
    assert refused > 30


def test_half_a_codec_that_is_not_read_may_hold_anything(parts):
    spoil(parts / "vae" / "diffusion_pytorch_model.safetensors", "encoder.conv_in.weight", one_nan)
    assert planned(parts).asked


def test_additions_are_judged_with_the_rest(parts):
    pair = {"blocks.0.ffn.0.lora_A.weight": torch.ones(2, SIZES["tiny"].network.dim)}
    pair["blocks.0.ffn.0.lora_B.weight"] = torch.full((SIZES["tiny"].network.ffn_dim, 2), torch.nan)
    save_file(pair, parts / "lora.safetensors")
    with pytest.raises(ValueError, match="lora.safetensors: blocks.0.ffn.0.lora_B.weight holds a NaN"):
        planned(parts, f"backbone.lora={parts / 'lora.safetensors'}")


def test_content_is_read_once(parts, monkeypatch):
    seen = []
    monkeypatch.setattr(house, "LARGE_BYTES", 1000)
    monkeypatch.setattr(house, "_JUDGED", set())
    judge = backbones.judged_once
    monkeypatch.setattr(backbones, "judged_once", lambda path, kind, work: judge(path, kind, lambda: seen.append(kind) or work()))
    planned(parts)
    planned(parts)
    assert seen == ["network", "text", "wan"]
    monkeypatch.setattr(house, "_JUDGED", set())  # another process
    planned(parts)
    assert len(seen) == 3, "a note beside a large file says that it was judged"
    spoil(parts / "network.safetensors", "head.head.bias", lambda tensor: tensor + 1)
    planned(parts)
    assert seen[3:] == ["network"]


def test_a_prompt_that_is_too_long_or_unknown_is_refused_before_any_work(parts):
    write_prompts(parts / "prompts.jsonl", 1, texts=(TEXT, "valve " * 512))
    with pytest.raises(ValueError, match=r"^prompt 'toy-000': 'valve .*' has 513 tokens; the text encoder takes at most 512"):
        planned(parts)
    with pytest.raises(ValueError, match=r"^prompt 'toy-000': .* has \d+ tokens; the text encoder takes at most 512"):
        planned(parts, "weights=random")
    write_prompts(parts / "prompts.jsonl", 1, texts=(TEXT, "le valve de la barque"))
    with pytest.raises(ValueError, match=r"^prompt 'toy-000': 'le valve de la barque': \d+ of its \d+ letters are unknown"):
        planned(parts)


def table(tmp_path: Path, content: bytes) -> Table:
    sha256 = hashlib.sha256(content).hexdigest()
    row = f"{{size: {len(content)}, sha256: {sha256}}}"
    text = f"sources: {{real: {{repo: a/b, revision: {'a' * 40}, license: mit, files: {{in/w.pt: {row}}}}}}}"
    (tmp_path / "hub.yaml").write_text(f"{text}\ngroups: {{}}\n", encoding="utf-8")
    return Table(tmp_path / "hub.yaml")


def test_a_known_file_is_known_wherever_it_lies_and_refused_where_it_is_another(tmp_path):
    known = table(tmp_path, b"right")
    elsewhere, place, own = (tmp_path / name for name in ("mine.bin", "real/in/w.pt", "own.pt"))
    place.parent.mkdir(parents=True)
    for path in (elsewhere, place):
        path.write_bytes(b"right")
        assert published(path, known).source == "real"
    own.write_bytes(b"a fine-tuned one")
    assert published(own, known) is None
    for content, words in ((b"wrong", "sha256 .*, a/b@a{40}/in/w.pt has"), (b"cut", "3 bytes, a/b@a{40}/in/w.pt has 5")):
        place.write_bytes(content)
        for path in (place, place.parent):
            with pytest.raises(ValueError, match=f"^{place}: {words}.*; away with it, and fetch again$"):
                published(path, known)
    (tmp_path / "w.pt").write_bytes(b"wrong")
    with pytest.raises(ValueError, match="away with it, and fetch again"):
        published(tmp_path / "w.pt", known)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"_class_name": "WanTransformer3DModel"}, "says WanTransformer3DModel, which attends to the whole video; a causal one"),
        ({"_class_name": "CausalWanModel", "num_frame_per_block": 1}, "says num_frame_per_block 1; blocks are of 3 frames here"),
        ({"_class_name": "CausalWanModel", "num_frame_per_block": 3}, ""),
        ({}, ""),
    ],
)
def test_the_wrong_network_in_the_right_shapes_is_said(said, told, parts):
    folder = parts / "folder"
    folder.mkdir()
    (parts / "network.safetensors").rename(folder / "diffusion_pytorch_model.safetensors")
    (folder / "config.json").write_text(json.dumps(said), encoding="utf-8")
    config = planned(parts, f"backbone.weights={folder}").config
    lines = backbones.notes([config, config])
    assert len(lines) == bool(told) and all(told in line and str(folder) in line for line in lines)


def test_a_file_of_another_backbone_is_said(parts, monkeypatch):
    known = table(parts, (parts / "network.safetensors").read_bytes())
    known.groups["backbone"] = {"self_forcing": ["self_forcing", "wan"]}
    monkeypatch.setattr(hub, "shipped", lambda: known)
    (line,) = backbones.notes([planned(parts).config])
    assert line.endswith("network.safetensors: by its sha256 it is of real, not of self_forcing")
    known.groups["backbone"]["self_forcing"].append("real")
    assert not backbones.notes([planned(parts).config, planned(parts, "weights=random").config])


def test_what_the_table_vouches_for_is_not_read_again(parts, monkeypatch):
    content = (parts / "network.safetensors").read_bytes()
    monkeypatch.setattr(hub, "shipped", lambda: table(parts, content))
    kinds = []
    monkeypatch.setattr(backbones, "judged_once", lambda path, kind, work: kinds.append(kind))
    planned(parts)
    assert kinds == ["text", "wan"]


@pytest.mark.parametrize("key", ["weights", "lora", "parts.text", "parts.tokenizer", "parts.codec"])
def test_a_file_that_random_weights_would_not_read_is_refused(key, tmp_path):
    with pytest.raises(ValueError) as told:
        prepare(one([*TINY, "weights=random", f"backbone.{key}=x", f"store={tmp_path}"]))
    assert str(told.value) == f"backbone.{key}=x: weights=random draws every part and reads no file; leave it out, or weights=trained"
    for words in (["checkpoints=elsewhere"], ["backbone=longlive"], []):
        assert prepare(one([*TINY, *words, "weights=random", f"store={tmp_path}"])).config.backbone.parts.text == "random"

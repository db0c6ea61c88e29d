"""What a real disk, a real folder and a real environment do to scoring: frozen videos, trimmed files, crashes, missing packages."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import types
import zipfile
from dataclasses import replace
from fractions import Fraction
from importlib.machinery import ModuleSpec
from pathlib import Path

import av
import numpy as np
import pytest
import yaml

from echo.files import ROOT, write_atomic
from eval.vbench import video
from eval.vbench.kit import FIRSTS_OF, Kit, Wish
from eval.vbench.measure import FrameLayout
from eval.vbench.networks import packages
from eval.vbench.networks.catalogue import CLASSES
from eval.vbench.networks.interface import NETWORKS
from eval.vbench.records import Record, RecordKey, RecordStore
from eval.vbench.rules import PAIR_RULES, TEXTS, Measured, mapped, score
from eval.vbench.video import Facts, chunks, inspect
from tests.helpers.constructed import FPS, StandIn, StandIns, film, scorer, write

KEY = RecordKey("video", "dino", "weights", 1, "fp32 cpu", {"torch": "2"}, {"units": "u"})


def test_equal_frames_have_a_clip_to_clip_score():
    """Unit features of equal frames have cosines of 1 +- 4e-16: 50 random features, both dimensions of 5 clips each."""
    generator = np.random.default_rng(0)
    beyond = 0
    for width in range(3, 53):
        feature = np.tile(generator.normal(size=width).astype(np.float32), (160, 1))
        named = {name: Record(np.arange(160)[:, None], feature) for name in ("dino", "clip_b32")}
        named |= {f"{name}_firsts": Record(np.arange(5)[:, None] * 32, feature[:5]) for name in ("subject", "background")}
        measured = Measured(160, 16.0, 128, 128, named)
        beyond += bool((measured.features("dino")[0] @ measured.features("dino")[0]) > 1)
        found = score(measured, "long60", [(0, 160)], {}, long=True).metrics
        for dimension in ("subject_consistency", "background_consistency"):
            expected = 50 + 50 * mapped(dimension, 1.0)
            assert found[f"{dimension}.vbench_long"] == pytest.approx(expected, abs=1e-9), width
    assert beyond, "none of the features was beyond 1, so nothing was tried"
    for wrong in (1 + 1e-6, -1e-6, float("nan")):
        with pytest.raises(ValueError, match="within 0..1"):
            mapped("subject_consistency", wrong)
    assert mapped("subject_consistency", -1e-12) == mapped("subject_consistency", 0.0)


def test_a_frozen_video_is_scored(tmp_path):
    """By networks that answer one feature whose length rounds: the scores are those of a flawless, motionless video."""
    drawn = np.random.default_rng(1).normal(size=(100, 9)).astype(np.float32)
    units = drawn.astype(np.float64) / np.linalg.norm(drawn.astype(np.float64), axis=1, keepdims=True)
    feature = drawn[int(np.argmax([unit @ unit for unit in units]))]
    assert max(unit @ unit for unit in units) > 1

    class Frozen(StandIn):
        def _features(self, frames, band):
            return np.tile(feature, (len(frames), 1))

    source = StandIns()
    source.make = lambda name, dtype, device: Frozen(name, source.asked)
    mine = scorer(tmp_path, source)
    found = mine.score(mine.inspect(write(tmp_path / "frozen.mp4", film(np.full((160, 8), 4)))), "long60", [(0, 160)]).metrics
    assert found["subject_consistency.vbench_long"] > 99 and found["background_consistency.vbench_long"] > 98
    assert found["subject_consistency.vbench"] == pytest.approx(100) and found["dynamic_degree.vbench"] == 0


def trimmed(path: Path, hidden: int) -> Path:
    """48 frames of which an edit list hides the first ones, as `ffmpeg -ss ... -c copy` leaves a file. Pictures in groups of 16."""
    whole = path.with_name("whole.mp4")
    with av.open(str(whole), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(FPS))
        stream.height = stream.width = 64
        stream.pix_fmt = "yuv420p"
        stream.options = {"g": "16", "keyint_min": "16", "sc_threshold": "0", "bf": "0"}
        for grey in range(48):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((64, 64, 3), 5 * grey, np.uint8), format="rgb24")))
        container.mux(stream.encode(None))
    with av.open(str(whole)) as old, av.open(str(path), "w", options={"avoid_negative_ts": "disabled", "use_editlist": "1"}) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(old.streams.video[0]):
            if packet.dts is not None:
                shift = round(hidden / FPS / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
                new.mux(packet)
    return path


@pytest.mark.parametrize("hidden", [5, 21])
def test_a_trimmed_file_is_no_truncated_one(tmp_path, hidden):
    """With a hidden beginning inside the first group of pictures, and inside the second; cut in half it is refused as before."""
    path = trimmed(tmp_path / "trimmed.mp4", hidden)
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == 48, "the header counts all of them"
    facts = inspect(path)
    shown = np.concatenate([frames for _, frames in chunks(facts)])
    assert facts.frames == len(shown) == 48 - hidden
    assert abs(float(shown[0].mean()) - 5 * hidden) < 3, "the first frame is the first that is shown"
    content = path.read_bytes()
    with av.open(str(path)) as container:
        places = [packet.pos for packet in container.demux(container.streams.video[0]) if packet.size]
    path.write_bytes(content[: places[len(places) // 2]])
    with pytest.raises(ValueError, match="truncated"):
        inspect(path)


def test_every_key_of_a_video_names_what_decodes(tmp_path, monkeypatch):
    facts = Facts(tmp_path / "v.mp4", "digest", 64, 16.0, 128, 128)
    kit = Kit(Wish(kinds=("vbench_text_alignment",)), StandIns())
    metrics = kit.queries(FrameLayout(64, 16.0, True, ((0, 64),)))
    assert {metric.name for metric in metrics} >= {"difference", "dino", "raft", "subject_firsts", "viclip"}
    assert all(metric.key(facts).versions["av"] == av.__version__ for metric in metrics)
    keys = {metric.key(facts).name for metric in metrics}
    identity = kit.identity(long=True, text=True)
    derived: list[RecordKey] = []
    store = RecordStore(tmp_path)
    monkeypatch.setattr(store, "read", derived.append)
    monkeypatch.setattr(store, "keep", lambda key, record: None)
    seen = Record(np.zeros((2, 1), np.int64), np.eye(9, dtype=np.float32)[:2])
    kit.derived(facts, {"clip_l14": seen}, store)
    assert derived[0].versions["av"] == av.__version__
    for module in (video, sys.modules["eval.vbench.kit"]):
        monkeypatch.setattr(module, "DECODER", dict(video.DECODER) | {"libswscale": "0"})
    assert not keys & {metric.key(facts).name for metric in metrics}, "another FFmpeg below the same PyAV"
    assert kit.identity(long=True, text=True) != identity


def test_versions_are_told_in_one_place():
    """Every package whose module a network's file asks for is among that network's needs, and no network tells versions of its own."""
    asks = {"dino": "dino", "clip": "clip_b32", "musiq": "musiq", "raft": "raft", "amt": "amt", "viclip": "viclip", "dreamsim": "dreamsim"}
    for file, network in asks.items():
        text = (ROOT / "eval" / "vbench" / "networks" / f"{file}.py").read_text(encoding="utf-8")
        wanted = {name.partition(".")[0] for name in re.findall(r'need\("([\w.-]+)"', text)}
        assert wanted and wanted <= set(NETWORKS[network].modules), (file, wanted)
        assert "libraries" not in text
    versions = Kit(Wish(), StandIns())._versions
    assert {"transformers", "vbench", "timm"} <= set(versions("viclip"))
    assert {"dreamsim", "timm", "peft", "open-clip-torch"} <= set(versions("dreamsim"))
    assert "pillow" not in versions("musiq"), "what computes nothing does not cost a record"


def only_without(monkeypatch, *gone: str) -> None:
    """Every module is there but these."""
    monkeypatch.setattr(packages, "find_spec", lambda name: None if name in gone else ModuleSpec(name, None))


@pytest.mark.parametrize("module", NETWORKS["dreamsim"].modules)
def test_what_dreamsim_lacks_is_told_before_any_work(monkeypatch, module):
    kit = Kit(Wish(("background_consistency",)), StandIns())
    only_without(monkeypatch)
    kit.check(long=True, text=False)
    only_without(monkeypatch, module)
    with pytest.raises(ValueError) as refusal:
        kit.check(long=True, text=False)
    text = str(refusal.value)
    assert packages.distribution(module) in text and packages.DREAMSIM in text and "\n" not in text
    brought = packages.INSTALL + packages.DREAMSIM if packages.INSTALL in text else packages.DREAMSIM
    comes = packages.distribution(module) in ("transformers", "ftfy", "regex", "pillow", "pyyaml") and "[vbench]" in brought
    assert comes or f"{packages.distribution(module)}==" in brought, "the line brings it"
    if module in packages.DREAMSIM:
        Kit(Wish(("background_consistency",), firsts="dino_clip"), StandIns()).check(long=True, text=False)


def test_a_dreamsim_that_does_not_import_is_told_with_its_own_line(monkeypatch):
    broken = types.ModuleType("dreamsim")
    monkeypatch.setattr(packages, "import_module", lambda name: exec("import no_such_module_of_peft", broken.__dict__))
    monkeypatch.setattr(packages, "prepare", lambda: None)
    with pytest.raises(ValueError) as refusal:
        packages.need("dreamsim", asked="DreamSim")
    assert packages.DREAMSIM in str(refusal.value) and "no_such_module_of_peft" in str(refusal.value)


def test_dreamsims_archive_is_unpacked_whole_or_not_at_all(tmp_path, monkeypatch):
    """A kill in the middle leaves nothing that the next start takes for the ensemble; a damaged archive is refused by name."""
    pytest.importorskip("torch")
    from eval.vbench.networks.dreamsim import Dreamsim

    path = tmp_path / "dreamsim_ensemble_checkpoint.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("ensemble_lora/adapter_config.json", "clip_vitb16_pretrain.pth.tar"):
            archive.writestr(name, "{}" * 100)
    plain = zipfile.ZipFile.extractall

    def killed(self, place):
        self.extract("ensemble_lora/adapter_config.json", place)
        raise KeyboardInterrupt

    given: list[list[str]] = []

    def dreamsim(pretrained: bool, device: str, cache_dir: str) -> tuple[None, None]:
        given.append(sorted(file.name for file in Path(cache_dir).rglob("*") if file.is_file()))
        return None, None

    monkeypatch.setitem(sys.modules, "dreamsim", types.SimpleNamespace(dreamsim=dreamsim))
    monkeypatch.setattr(zipfile.ZipFile, "extractall", killed)
    with pytest.raises(KeyboardInterrupt):
        Dreamsim.load(path)
    monkeypatch.setattr(zipfile.ZipFile, "extractall", plain)
    Dreamsim.load(path)
    assert given == [["adapter_config.json", "clip_vitb16_pretrain.pth.tar"]]
    assert sorted(file.name for file in tmp_path.iterdir()) == [".dreamsim_ensemble_checkpoint", path.name], "nothing left beside"
    other = tmp_path / "other.zip"
    other.write_bytes(path.read_bytes().replace(b"{}{}", b"{}[]", 1))
    with pytest.raises(ValueError, match="other.zip: damaged"):
        Dreamsim.load(other)
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("something.txt", "")
    with pytest.raises(ValueError, match="other.zip is not DreamSim's"):
        Dreamsim.load(other)


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    order: list[str] = []
    fsync, rename = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (order.append(f"fsync {os.fstat(handle).st_size}"), fsync(handle))[1])
    monkeypatch.setattr(os, "replace", lambda old, new: (order.append("replace"), rename(old, new))[1])
    write_atomic(tmp_path / "file", b"content")
    assert order[:2] == ["fsync 7", "replace"] and (tmp_path / "file").read_bytes() == b"content"


def test_a_damaged_part_is_measured_again(tmp_path):
    """Cut off, emptied, or all zeros, as a crash leaves files on some disks."""
    store = RecordStore(tmp_path)
    for start in (0, 64, 128, 192):
        store.keep_part(KEY, start, Record(np.arange(start, start + 2)[:, None], np.ones(2)))
    first, second, third, _ = sorted(store._parts(KEY).glob("*.safetensors"))
    first.write_bytes(first.read_bytes()[:40])
    second.write_bytes(b"")
    third.write_bytes(bytes(third.stat().st_size))
    assert list(store.parts(KEY)) == [192]
    first.write_bytes(b"")
    store.keep_part(KEY, 0, Record(np.arange(2)[:, None], np.ones(2)))
    assert list(store.parts(KEY)) == [0, 192]
    with pytest.raises(ValueError, match="another record"):
        store.folder.joinpath("video", ".parts", KEY.name).rename(store._parts(replace(KEY, rule=2)))
        store.parts(replace(KEY, rule=2))


def test_the_cost_lines_name_what_stood_in():
    from tests.load.vbench_cost import SLOW

    rows = [json.loads(line) for line in (ROOT / "docs" / "data" / "vbench_cost.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {row["networks"]: row["stand_ins"] for row in rows} == {"tiny": list(SLOW), "true": []}


@pytest.mark.slow
def test_the_command_of_the_equality_tests_needs_no_plugin_of_ours():
    """Its environment has no pytest-xdist: with that taken away here too, its very options are understood."""
    text = (ROOT / "tests" / "vbench" / "run").read_text(encoding="utf-8")
    line = re.search(r'"\$python" (-m pytest tests/vbench .*)', text)
    assert line is not None
    words = [word for word in shlex.split(line[1]) if word != "$two"]  # nothing, where it is not there
    command = [sys.executable, *words[:2], "-p", "no:xdist", "--co", "tests/vbench/test_dino.py", *words[3:]]
    found = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout[-300:] + found.stderr[-300:]


def test_the_page_has_the_lines_and_the_words_of_the_code():
    """The guide has both lines, every network with its file, every kind and rule, and exactly the files that hub.yaml does not pin."""
    page = (ROOT / "docs" / "vbench.md").read_text(encoding="utf-8")
    assert packages.INSTALL in page and packages.DREAMSIM in page
    for word in [*CLASSES, *(name for network in NETWORKS.values() for name in network.files), *TEXTS, *FIRSTS_OF, *PAIR_RULES]:
        assert f"`{word}`" in page or f".{word}`" in page, word
    sources = yaml.safe_load((ROOT / "data" / "hub.yaml").read_text(encoding="utf-8"))["sources"].items()
    own = [source["files"] for name, source in sources if name.startswith("vbench/")]
    loose = {name for files in own for name, facts in files.items() if facts["sha256"] is None}
    (told,) = re.findall(r"by sha256 except three, (.*?)\. The digest", page, flags=re.S)
    assert set(re.findall(r"`([^`]+)`", told)) == loose and len(loose) == 3

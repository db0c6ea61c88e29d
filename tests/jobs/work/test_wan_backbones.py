"""Backbones of Wan2.1's make through the whole path, prompt to MP4, at tiny sizes: random weights, and files of the true formats."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import av
import pytest

from echo.backbone.sizes import SIZES
from echo.files import ROOT
from echo.scene import Transition, load_prompts
from eval.store.runs import runs
from jobs.launch import local
from jobs.memory.job import card_bytes, forecast_of, foretell
from jobs.spec import backbones
from jobs.spec.compose import one
from jobs.spec.plan import prepare
from jobs.store.folder import new_attempt
from jobs.work import models, worker
from jobs.work.video import VideoWriter
from tests.helpers.policies import PRESETS
from tests.helpers.toy import write_prompts

COMMAND = "backbone=self_forcing weights=random geometry=tiny method=echo task=hard seed=0 prompts=1 eval=none"
GENERATED = sorted({name for name, _ in PRESETS})
TINY = ["backbone=self_forcing", "geometry=tiny", "task=hard", "prompts=1"]
ON_A_CARD = ["weights=random", "backbone.parts.device=cuda", "backbone.parts.kernel=flash"]


SECRETS = {"HF_TOKEN": "hf_planted0123456789", "WANDB_API_KEY": "planted-1111222233334444", "AWS_SECRET_ACCESS_KEY": "planted/55556666"}


def run(*words: str) -> str:
    environment = os.environ | SECRETS
    done = subprocess.run([sys.executable, "run.py", *words], cwd=ROOT, env=environment, text=True, capture_output=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def planned(*words: str):
    return prepare(one(words))


def only_record(store: Path) -> tuple[dict, Path]:
    (found,) = runs(store)
    (record,) = found.records()
    assert record.status == "ok", record
    return record, found.path / "units"


def frames_of(path: Path) -> list:
    with av.open(str(path)) as file:
        assert file.streams.video[0].average_rate == 16
        return [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]


@pytest.mark.slow
def test_the_documented_command_goes_from_prompt_to_video(tmp_path):
    """Of a quarter of its length: six scenes all the same."""
    shorter = [*COMMAND.split(), "duration_scale=0.25", f"store={tmp_path}"]
    said = run(*shorter)
    record, units = only_record(tmp_path)
    assert record.blocks == 20 and record.metrics == {}
    frames = frames_of(units / record.files["video"])
    assert len(frames) == 20 * 12 - 3, "the first latent frame is one pixel frame, every other is four"
    assert frames[0].shape[1] * SIZES["tiny"].height_px == frames[0].shape[0] * SIZES["tiny"].width_px
    trace = [json.loads(line) for line in (units / record.files["trace"]).read_text(encoding="utf-8").splitlines()]
    assert len(trace) == 20 and any("srf" in str(line) for line in trace), "the old scene is remembered at a cut"
    assert "GB" in said and record.memory["measured_bytes"] > 0 and record.memory["computed_bytes"] > 0
    assert len(list((tmp_path / "text").rglob("*.safetensors"))) == 6
    before = sorted(path.stat().st_mtime_ns for path in tmp_path.rglob("*.mp4"))
    run(*shorter)
    assert sorted(path.stat().st_mtime_ns for path in tmp_path.rglob("*.mp4")) == before, "what is there is not made again"
    written = {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for secret in SECRETS.values():
        assert not [name for name, content in written.items() if secret.encode() in content] and secret not in said
    assert len(written) > 10


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """All three parts as their makers save them, by their own libraries, and two scenes to be shown."""
    import torch

    from echo.backbone.checkpoints.transformer import random_network
    from echo.backbone.extras import need

    diffusers, tokenizers, transformers = need("diffusers"), need("tokenizers"), need("transformers")
    folder = tmp_path_factory.mktemp("real")
    state = random_network(SIZES["tiny"].network, torch.float32, "cpu").state_dict()
    torch.save({"generator_ema": {f"model._fsdp_wrapped_module.{name}": value for name, value in state.items()}}, folder / "dmd.pt")
    torch.manual_seed(3)
    text = transformers.UMT5Config(vocab_size=64, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=4, feed_forward_proj="gated-gelu")
    transformers.UMT5EncoderModel(text).save_pretrained(folder / "text")
    prompts = write_prompts(folder / "prompts.jsonl", 1)
    words = sorted({word for scene in load_prompts(prompts)[0].scenes for word in scene.split()})
    vocabulary = {word: number for number, word in enumerate(["<pad>", "</s>", "<unk>", *words])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    (folder / "tokenizer").mkdir()
    tokenizer.save(str(folder / "tokenizer" / "tokenizer.json"))
    diffusers.AutoencoderKLWan(base_dim=4).save_pretrained(folder / "vae")
    return folder


def places(files: Path) -> list[str]:
    named = {"weights": "dmd.pt", "parts.text": "text", "parts.tokenizer": "tokenizer", "parts.codec": "vae"}
    dtypes = [f"backbone.{name}=float32" for name in ("dtype", "parts.text_dtype", "parts.codec_dtype")]
    return [*(f"backbone.{key}={files / name}" for key, name in named.items()), *dtypes, f"task.prompt_set={files / 'prompts.jsonl'}"]


def by_hand(files: Path):
    """Latents [1, F, C, H, W] and frames [T, H, W, 3] by the libraries that made the files and a plain rollout."""
    import torch

    from baselines.presets import make_policy
    from echo.backbone import sizes
    from echo.backbone.extras import need
    from echo.backbone.wan import WanModel
    from echo.noise import keyed_noise
    from echo.rollout import Rollout
    from echo.scene import Transition

    tiny = SIZES["tiny"]
    model = WanModel(tiny.network)
    state = torch.load(files / "dmd.pt", weights_only=True)["generator_ema"]
    model.load_state_dict({name.removeprefix("model._fsdp_wrapped_module."): value for name, value in state.items()})
    transformers, prompt = need("transformers"), load_prompts(files / "prompts.jsonl")[0]
    tokenizer = need("tokenizers").Tokenizer.from_file(str(files / "tokenizer" / "tokenizer.json"))
    encoder = transformers.UMT5EncoderModel.from_pretrained(files / "text").eval()
    rows = []
    for scene in prompt.scenes:
        numbers = tokenizer.encode(scene).ids
        table = torch.zeros(1, 512, dtype=torch.long)
        table[0, : len(numbers)] = torch.tensor(numbers)
        mask = (torch.arange(512) < len(numbers)).long()[None]
        with torch.no_grad():
            rows.append(encoder(table, attention_mask=mask).last_hidden_state * mask[..., None])
    shape = (3, 16, 8, 12)
    geometry = sizes.geometry(tiny.network, tiny.height_px, tiny.width_px, 21)
    rollout = Rollout(model.eval(), make_policy({"method": "self_forcing"}), geometry, keyed_noise(5, [prompt.id], shape))
    latents = []
    for index in range(8):
        if index in (0, 4):
            rollout.switch(rows[index // 4], Transition.hard)
        latents.append(rollout.next().latents)
    vae = need("diffusers").AutoencoderKLWan.from_pretrained(files / "vae").eval()
    z = torch.cat(latents, 1).transpose(1, 2)
    mean, std = (torch.tensor(getattr(vae.config, name)).view(1, -1, 1, 1, 1) for name in ("latents_mean", "latents_std"))
    with torch.no_grad():
        pixels = vae.decode(z * std + mean).sample.clamp(-1, 1)
    return torch.cat(latents, 1), ((pixels[0].permute(1, 2, 3, 0) + 1) * 127.5).round().byte().numpy()


@pytest.mark.slow
def test_files_of_the_true_formats_make_the_video_that_their_own_libraries_make(files, tmp_path):
    import numpy as np

    from echo.backbone.real import RealBackbone
    from jobs.work.blocks import blocks

    job = planned(*TINY, *places(files), "method=self_forcing", "seed=5", f"store={tmp_path}")
    made = [
        (part.content()[0], part.frames()[0]) for part in blocks(job, RealBackbone(models.parts_to_load(job.config)), job.asked, job.asked)
    ]
    latents, frames = by_hand(files)
    ours = np.concatenate([np.frombuffer(content, np.float32).reshape(1, 3, 16, 8, 12) for content, _ in made], 1)
    difference = np.abs(ours - latents.numpy())
    assert ours.shape == latents.shape and difference.max() < 1e-4, f"latents: max {difference.max():.3g}, mean {difference.mean():.3g}"
    shown = np.concatenate([frames for _, frames in made])
    assert shown.shape == frames.shape == (8 * 12 - 3, 64, 96, 3)
    steps = np.abs(shown.astype(int) - frames.astype(int))
    assert steps.max() <= 1, f"pixels: max {steps.max()}, mean {steps.mean():.3g}"


@pytest.mark.parametrize(
    "words, told",
    [
        (["weights=random"], ["weights=random: backbone=tiny takes", "nearest is backbone=self_forcing"]),
        (["geometry=tiny"], ["geometry=tiny: backbone=tiny takes"]),
        (["backbone=longlive", "checkpoints=/nowhere"], ["backbone.weights=/nowhere/longlive/", "data download backbone=longlive"]),
        ([*TINY, "weights=random", "eval=embedded"], ["eval=embedded: reads videos of the embedded world", "nearest is eval=none"]),
        ([*TINY, "weights=random", "method=render_truth"], ["method=render_truth: renders the embedded world"]),
        ([*TINY, "weights=random", "backbone.parts.height_px=500"], ["backbone.parts.height_px=500", "nearest is 496"]),
        ([*TINY, "weights=random", "backbone.parts.compile=graphs"], ["backbone.parts.compile 'graphs': CUDA graphs need a CUDA device"]),
        ([*TINY, "weights=random", "backbone.parts.kernel=flash"], ["kernel", "flash", "nearest is"]),
        ([*TINY, *ON_A_CARD, "method=recency"], ["backbone.parts.kernel 'flash': adds no bias to logits", "nearest is 'sdpa'"]),
        ([*TINY, "weights=rendom"], ["weights=rendom: nearest is random"]),
    ],
)
def test_what_cannot_run_is_refused_before_any_work(words, told):
    with pytest.raises(ValueError) as refusal:
        planned(*words)
    assert "\n" not in str(refusal.value) and all(part in str(refusal.value) for part in told), refusal.value


@pytest.mark.parametrize("key, other", [("weights", "text"), ("parts.text", "vae"), ("parts.codec", "text"), ("parts.tokenizer", "vae")])
def test_a_wrong_file_is_refused_before_any_work(files, key, other):
    with pytest.raises(ValueError) as refusal:
        planned(*TINY, *places(files), f"backbone.{key}={files / other}")
    assert "\n" not in str(refusal.value) and str(files / other) in str(refusal.value)


def test_the_encoder_is_loaded_once_for_a_sweep(files, tmp_path):
    """The first job encodes all texts, including those for routers; no later job finds one missing."""
    from echo.backbone.real import RealBackbone
    from echo.generate import check

    words = [*TINY, *places(files), f"store={tmp_path}"]
    jobs = [planned(*words, f"method={name}") for name in ("self_forcing", "echo")]
    recall = planned(*TINY, "weights=random", "task=recall", f"store={tmp_path}")
    asked = local.texts_of([*jobs, recall])
    assert len(asked) > len({text for job in (jobs[0], recall) for prompt in job.asked for text in prompt.scenes})
    first, later = (RealBackbone(models.parts_to_load(recall.config)) for _ in range(2))
    first.text.text_len = later.text.text_len = 128  # padding beyond a text costs time alone
    first.text.prepare(asked)
    first.text.release()
    assert check(later, recall.policy, recall.asked[0]).blocks == 80 and (first.text.loads, later.text.loads) == (1, 0)


def test_the_encoder_is_loaded_once_where_texts_say_how_scenes_are_entered(tmp_path):
    from echo.backbone.real import RealBackbone
    from echo.generate import check

    levels = ("++method.routing.threshold_smooth=1", "++method.routing.threshold_recall=-1", "++method.routing.running=previous")
    tagged = planned(*TINY, "weights=random", "task=recall", f"store={tmp_path}", *levels)
    prompt = dataclasses.replace(tagged.asked[0], tags=(None,) * 6)
    job = dataclasses.replace(tagged, prompt_set=(prompt,))
    first, later = (RealBackbone(models.parts_to_load(job.config)) for _ in range(2))
    first.text.text_len = later.text.text_len = 128
    first.text.prepare(local.texts_of([job]))
    first.text.release()
    ways = [start.transition for start in check(later, job.policy, prompt).starts]
    assert Transition.recall in ways and (first.text.loads, later.text.loads) == (1, 0), ways


@pytest.mark.parametrize("preset", GENERATED)
def test_memory_of_every_method_can_be_told(preset):
    forecast = forecast_of(planned(*TINY, "weights=random", f"method={preset}", "task=recall", "store=nowhere"))
    assert forecast.peak > forecast.cache > 0 and "\n" not in forecast.line()


def test_frames_of_another_size_are_asked_for(tmp_path):
    job = planned(*TINY, "weights=random", "backbone.parts.height_px=128", "backbone.parts.width_px=160", f"store={tmp_path}")
    assert backbones.geometry(job.config).latent_height == 16 and backbones.geometry(job.config).latent_width == 20


def test_a_job_reads_its_weights_from_scratch_and_is_the_same_job(files, tmp_path, monkeypatch):
    import torch

    words, notes = [*TINY, *places(files), f"store={tmp_path}"], list[str]()
    plain = planned(*words)
    shared, _ = models.load(plain)
    monkeypatch.setenv("ECHO_SCRATCH", str(tmp_path / "scratch"))
    job = planned(*words)
    near, _ = models.load(job, note=notes.append)
    assert (job.run_id, near.parts.content, near.parts.text) == (plain.run_id, shared.parts.content, shared.parts.text)
    copies = [near.parts.weights, near.parts.codec]
    assert all(path.is_relative_to(tmp_path / "scratch") for path in copies) and [path.name for path in copies] == ["dmd.pt", "vae"]
    own, same = shared.network.state_dict(), near.network.state_dict()
    assert own.keys() == same.keys() and all(torch.equal(own[name], same[name]) for name in own) and near.codec is not None
    assert len(notes) == 2


def test_parts_with_a_file_that_was_replaced_are_others(files, tmp_path):
    def parts():
        return models.parts_to_load(planned(*TINY, *places(files), f"store={tmp_path}").config)

    weights, first = files / "dmd.pt", parts()
    kept = weights.read_bytes()
    try:
        assert parts() == first
        weights.write_bytes(kept + b"\0")
        job = planned(*TINY, "weights=random", f"store={tmp_path}")
        changed = dataclasses.replace(job.config, backbone=dataclasses.replace(job.config.backbone, weights=str(weights)))
        assert models.parts_to_load(changed).content[0] != first.content[0] is not None
    finally:
        weights.write_bytes(kept)


def test_the_card_is_asked_by_its_own_tool(monkeypatch, tmp_path):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 81559\necho 24564\n", encoding="utf-8")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert card_bytes() == 24564 * 2**20
    job = planned("backbone=self_forcing", "weights=random", "method=echo", "task=recall", "prompts=1", "backbone.parts.window=resident")
    line, *advice = foretell([job])
    assert "of 25.76 GB" in line and not advice
    for bytes_of_card, window in ((40 * 10**9, "resident"), (30 * 10**9, "shared"), (None, "shared")):
        forecast = forecast_of(planned("backbone=self_forcing", "weights=random", "method=echo", "task=recall", "prompts=1"), bytes_of_card)
        assert forecast.setup.window == window, f"{forecast.peak / 1e9:.1f} GB and a quarter more, of {bytes_of_card}"
    tool.write_text("#!/bin/sh\necho 20480\n", encoding="utf-8")
    assert foretell([job])[1].startswith("backbone.parts.window=shared saves 5.84 GB")


def test_packages_that_are_not_there_are_told_before_any_work(monkeypatch):
    from echo.backbone import extras

    find, absent = extras.importlib.util.find_spec, ("ftfy", "diffusers")
    monkeypatch.setattr(extras.importlib.util, "find_spec", lambda name, *rest: None if name in absent else find(name, *rest))
    with pytest.raises(ValueError, match=r"^backbone=self_forcing needs diffusers, ftfy: pip install -e '\.\[wan\]'$"):
        planned(*TINY, "weights=random")
    assert planned("backbone=tiny").config.backbone.parts is None


def test_a_card_that_is_not_there_is_told(monkeypatch):
    import torch

    job = planned("backbone=self_forcing", "weights=random")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ValueError, match="device=cuda, and torch sees no CUDA card"):
        models.cards([job.config])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert models.cards([job.config]) == ["0", "1"]
    text_only = planned(*TINY, "weights=random", "backbone.parts.text_device=cuda")
    assert models.cards([text_only.config]) == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert models.cards([job.config]) == ["3", "5"]


def test_a_run_is_named_by_what_really_runs(tmp_path):
    names = [
        planned(*words, f"store={tmp_path}").run_id
        for words in (
            [*TINY, "weights=random"],
            [*TINY, "weights=random", "backbone.parts.device=cpu"],
            [*TINY, "weights=random", "backbone.parts.decoder=taehv"],
            ["backbone=self_forcing", "weights=random", "task=hard", "prompts=1"],
        )
    ]
    assert names[0] == names[1] and len(set(names)) == 3
    assert planned(*TINY, "weights=random").config.backbone.label == "Self-Forcing, Wan2.1-1.3B, tiny sizes, random weights"


def test_a_video_is_written_while_the_next_block_is_made(tmp_path, monkeypatch):
    """To the byte what is written one block after the other."""
    add, threads = worker.Film.add, list[str]()
    monkeypatch.setattr(worker.Film, "add", lambda *block: (threads.append(threading.current_thread().name), add(*block)))
    words = [*TINY, "weights=random", "method=self_forcing", "eval=none", "backbone.parts.height_px=32", "backbone.parts.width_px=32"]
    config = one([*words, f"store={tmp_path}", f"task.prompt_set={write_prompts(tmp_path / 'prompts.jsonl', 1, 0.75)}"])
    job = prepare(config)
    assert worker.work(job, new_attempt(), [], config, lambda event: None) == 0
    record, units = only_record(tmp_path)
    assert record.blocks == len(threads) > 1 and len(set(threads)) == 1 and threads[0].startswith("video")
    (backbone, _), plain, digest = models.load(job), tmp_path / "plain.mp4", hashlib.sha256()
    with VideoWriter(plain, fps=16, height_px=job.config.video.height_px, crf=job.config.video.crf) as video:
        for part in worker.blocks(job, backbone, job.asked, job.asked):
            digest.update(part.content()[0])
            video.write(part.frames()[0])
    assert record.latents_sha256 == digest.hexdigest() and (units / record.files["video"]).read_bytes() == plain.read_bytes()


def test_what_is_done_aside_is_in_order_and_its_errors_are_told():
    done = list[int]()
    for threaded in (True, False):
        with worker.Aside(threaded) as aside:
            for number in range(20):
                aside.do(lambda number=number: done.append(number))
            aside.wait()
            assert done == list(range(20)) and not done.clear()
            with pytest.raises(OSError, match="no space left"):
                aside.do(lambda: os.stat("/nowhere/no space left"))
                aside.wait()

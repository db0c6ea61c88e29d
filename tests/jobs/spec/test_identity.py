"""Names by content: everything that can change a pixel enters, everything else is declared."""

from __future__ import annotations

import dataclasses
import hashlib

import pytest

from baselines.registry import make
from echo import files
from echo.scene import Prompt, prompt_digest
from eval.tables.build import DEFAULTS
from jobs.spec import compose, identity
from jobs.spec.config import (
    BackboneConfig,
    EvalConfig,
    MethodConfig,
    NoiseConfig,
    PartsConfig,
    RunConfig,
    TaskConfig,
    VbenchConfig,
    VideoConfig,
    inert,
)
from jobs.spec.plan import Job, prepare

PROMPTS = tuple(Prompt(f"p{i}", ("a red ball",), (6.0,), ("",)) for i in range(5))


@pytest.fixture
def job(tmp_path):
    (tmp_path / "weights").write_bytes(b"one")
    (tmp_path / "scorer").write_bytes(b"two")
    config = RunConfig(
        backbone=BackboneConfig("tiny", "tiny", str(tmp_path / "weights"), "float32", 1, 1, 8),
        method=MethodConfig("echo", "echo", {}),
        task=TaskConfig("recall", "Recall", "prompts"),
        eval=EvalConfig("embedded", "embedded", "embedded", str(tmp_path / "scorer")),
        noise=NoiseConfig(repeat_initial=False),
        video=VideoConfig(256, 18),
        seed=0,
        batch=1,
        duration_scale=1.0,
        prompts=4,
        shard=None,
        store="results",
        max_workers=None,
        max_tries=3,
    )
    return Job(config, make("echo", {}), PROMPTS)


OTHER = {
    "name": "other", "label": "other", "weights": "elsewhere", "dtype": "bfloat16", "threads": 2, "batch": 3, "prompts": 2, "policy": "x",
    "settings": {"x": 1}, "prompt_set": "other", "scorer": None, "height_px": 128, "crf": 20, "seed": 1, "duration_scale": 2.0,
    "shard": "1/2", "store": "other", "max_workers": 3, "max_tries": 1, "repeat_initial": True,
    "lora": "elsewhere", "prompt_folder": "other", "checkpoints": "other", "geometry": "tiny", "decoder": "taehv",
    "text_dtype": "float32", "text_device": "cpu", "codec_dtype": "float32", "width_px": 64, "window_frames": 24,
    "device": "cpu", "kernel": "flash3", "compile": "blocks", "window": "resident", "text_cache": "other", "parts": None,
    "text": "", "tokenizer": "", "codec": "", "vbench": VbenchConfig("all", "clip_b32", "dino_clip", "fp32", "cpu"),
    "borders": "seconds", "pairs": "joined", "experiment": "other", "frames_per_block": 1, "steps": (1000, 500), "first_steps": (1000,),
    "shift": 3.0, "warp": False, "tracker": "jsonl", "allow_dirty": True,
}  # fmt: skip
"""For each leaf of the config, by its own name, a value that it does not have above."""


AT = {"weights": "random"}
"""Likewise, by the whole path where the name alone would not do."""


def with_parts(job):
    """The same job on a backbone that has parts."""
    path = job.config.backbone.weights
    parts = PartsConfig(path, path, path, "wan", "bfloat16", "cuda", "bfloat16", 480, 832, 21, "cuda", "sdpa", "none", "shared", "text")
    return dataclasses.replace(job, config=replaced(job.config, "backbone.parts", parts))


def replaced(config, path, value):
    head, _, rest = path.partition(".")
    return dataclasses.replace(config, **{head: replaced(getattr(config, head), rest, value) if rest else value})


@pytest.mark.parametrize("make_job", [lambda job: job, with_parts], ids=["embedded", "parts"])
def test_every_field_is_declared_and_does_what_it_declares(job, tmp_path, make_job):
    """Walks the whole config: a field that changes neither hash while it claims to, or the other way round, fails."""
    job = make_job(job)
    (tmp_path / "elsewhere").write_bytes(b"three")
    for path, field, before in list(identity.leaves(job.config)):
        enters = field.metadata["enters"]
        value = AT.get(path, OTHER[path.rpartition(".")[2]])
        if path == "backbone.parts" and before is None:
            value = with_parts(job).config.backbone.parts
        if enters.endswith("_file"):
            value = str(tmp_path / "elsewhere")
        other = dataclasses.replace(job, config=replaced(job.config, path, value))
        pixels = other.run_id != job.run_id
        scores = other.scores_id != job.scores_id
        if path == "method.settings":
            continue  # the policy's own fields stand for it: the next test
        free = path == "batch" and job.config.backbone.parts is None
        assert (pixels, scores) == (enters.startswith("pixels") and not free, enters.startswith("scores")), path


def test_fields_that_came_later_add_nothing_at_their_defaults(job):
    """So runs of older stores continue under their names."""
    assert not {"weights", "geometry", "backbone.parts"} & set(job.run_key["pixels"]) and job.run_key["kernel"] == "sdpa cpu"
    assert with_parts(job).run_key["kernel"] == "sdpa cuda"


def test_scenes_may_end_by_seconds():
    """Named otherwise, cut otherwise, of the same videos; at the default as ever."""
    words = ["method=echo", "task=hard", "seed=0", "prompts=1"]
    blocks, seconds = (prepare(compose.one([*words, *more])) for more in ([], ["task.borders=seconds"]))
    (prompt,) = blocks.asked
    assert blocks.run_id == seconds.run_id and blocks.scores_id != seconds.scores_id and "task.borders" not in blocks.scores_key["scores"]
    assert blocks.stretches(prompt)[:2] == blocks.spans(prompt)[:2] == seconds.spans(prompt)[:2] == [(0, 156), (156, 324)]
    assert seconds.stretches(prompt) == [(160 * n, 160 * n + 160) for n in range(6)]
    message = "task.borders=seconds: prompt .* lasts 4.50 s, its prompt 2.40 s; within 1 s of it is taken; nearest is task.borders=blocks"
    with pytest.raises(ValueError, match=message):
        prepare(compose.one([*words, "task.borders=seconds", "duration_scale=0.04"]))


def test_pairs_enter_where_there_are_pairs():
    """Joined is the default of today, mean what stores from before were scored by; neither is said of a task without pairs."""
    words = ["method=echo", "seed=0", "prompts=1"]
    ids = {
        (task, pairs): prepare(compose.one([*words, f"task={task}", f"eval.pairs={pairs}"])).scores_id
        for task in ("hard", "recall")
        for pairs in ("mean", "joined")
    }
    assert ids["hard", "mean"] == ids["hard", "joined"] and len(set(ids.values())) == 3
    assert prepare(compose.one([*words, "task=recall"])).scores_id == ids["recall", "joined"]


def test_content_of_a_folder_enters_without_what_is_hidden(job, tmp_path):
    folder = tmp_path / "tokenizer"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "a.json").write_text("a", encoding="utf-8")
    base = with_parts(job)
    base = dataclasses.replace(base, config=replaced(base.config, "backbone.parts.tokenizer", str(folder)))
    first = base.run_id
    (folder / ".note").write_text("x", encoding="utf-8")
    assert dataclasses.replace(base).run_id == first
    (folder / "inner" / "a.json").rename(folder / "inner" / "b.json")
    assert dataclasses.replace(base).run_id != first


def test_digest_of_a_large_file_is_kept_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LARGE_BYTES", 4)
    path = tmp_path / "weights"
    path.write_bytes(b"large")
    found = files.file_digest(path)
    note = tmp_path / ".weights.blake2b"
    assert note.read_text(encoding="ascii").split()[2:] == [found, hashlib.sha256(b"large").hexdigest()]
    note.write_text(note.read_text(encoding="ascii").replace(found, "0" * 32), encoding="ascii")
    files._digests.cache_clear()
    assert files.file_digest(path) == "0" * 32, "another process reads the note, not the file"
    path.write_bytes(b"other bytes")
    assert files.file_digest(path) not in (found, "0" * 32), "a note of another version of the file counts for nothing"
    assert files.file_sha256(path) == hashlib.sha256(b"other bytes").hexdigest()
    note.write_text(f"{path.stat().st_mtime_ns} {path.stat().st_size} {'0' * 32}", encoding="ascii")
    files._digests.cache_clear()
    assert files.file_digest(path) != "0" * 32, "an earlier note, without sha256, is made again"


def test_undeclared_field_is_caught():
    @dataclasses.dataclass
    class Config:
        declared: int = inert("example")
        forgotten: int = 1

    with pytest.raises(ValueError, match="Config.forgotten must declare"):
        list(identity.leaves(Config(1, 2)))


def test_every_setting_of_a_policy_enters_except_its_label(job):
    changed = {"drift_gate_lambda": 1.0, "recent": 2, "label": "x", "hard": {"weight": 0.5}}
    for name, value in changed.items():
        other = dataclasses.replace(job, policy=make("echo", {name: value}))
        assert (other.run_id != job.run_id) == (name != "label"), name


def test_content_of_weights_enters_not_their_path(job, tmp_path):
    (tmp_path / "copy").write_bytes(b"one")
    copy = dataclasses.replace(job, config=replaced(job.config, "backbone.weights", str(tmp_path / "copy")))
    assert copy.run_id == job.run_id
    (tmp_path / "weights").write_bytes(b"changed")
    assert dataclasses.replace(job).run_id != job.run_id


@pytest.mark.parametrize("field", ["scenes", "durations_s", "tags", "id"])
def test_prompt_content_enters_the_unit(job, field):
    other = {"scenes": ("a blue ball",), "durations_s": (9.0,), "tags": ("#",), "id": "q"}[field]
    assert job.unit_id(dataclasses.replace(PROMPTS[0], **{field: other})) != job.unit_id(PROMPTS[0])


def test_a_prompt_has_one_name_at_every_scale():
    scaled = dataclasses.replace(PROMPTS[0], durations_s=tuple(d * 0.1 for d in PROMPTS[0].durations_s))
    assert prompt_digest(scaled, 0.1) == prompt_digest(PROMPTS[0], 1.0) != prompt_digest(scaled, 1.0)


def test_defaults_of_tables_are_those_of_the_config(job, plain):
    pixels = prepare(plain).run_key["pixels"]
    named = ("seed", "backbone.weights", "backbone.lora")  # told otherwise
    beside = {key: value for key, value in pixels.items() if not key.startswith("method.") and key not in named}
    assert beside == DEFAULTS


def test_how_many_prompts_and_which_shard_change_no_unit(job):
    for path, value in (("prompts", 2), ("shard", "1/2"), ("store", "x")):
        other = dataclasses.replace(job, config=replaced(job.config, path, value))
        assert other.unit_id(PROMPTS[0]) == job.unit_id(PROMPTS[0])


def test_batch_mates_enter_only_where_they_change_a_pixel(job):
    edited = (*PROMPTS[:4], dataclasses.replace(PROMPTS[4], scenes=("a blue ball",)))
    for make_job, mixing in ((lambda job: job, False), (with_parts, True)):
        single = make_job(job)
        batched = dataclasses.replace(single, config=replaced(single.config, "batch", 2))
        assert dataclasses.replace(single, prompt_set=edited).unit_id(PROMPTS[0]) == single.unit_id(PROMPTS[0])
        assert (dataclasses.replace(batched, prompt_set=edited).unit_id(PROMPTS[0]) != batched.unit_id(PROMPTS[0])) is mixing
        assert (batched.unit_id(PROMPTS[0]) != single.unit_id(PROMPTS[0])) is mixing


def test_shards_part_the_prompts():
    """Every prompt is in one shard, no shard is empty if there is work for all, and requests do not move prompts between shards."""
    for count in (8, 63, 64):
        parts = [{i for i in range(count) if identity.shard_of(i, 4) == part} for part in range(1, 5)]
        assert set().union(*parts) == set(range(count)) and sum(map(len, parts)) == count
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_shard_of_a_job(job):
    for seed in (0, 1):
        other = dataclasses.replace(job, config=replaced(replaced(job.config, "shard", "2/2"), "seed", seed))
        assert [prompt.id for prompt in other.mine] == ["p1", "p3"]


def test_names_do_not_move():
    """Names are the keys of stored results: a change here throws every stored result away, so it must be meant."""
    assert files.digest({"b": 1, "a": [1.5, None, "ü"]}) == "36991a64fd5c0ab8cf97"


def test_numbers_that_are_not_finite_are_refused():
    with pytest.raises(ValueError):
        files.canonical({"x": float("nan")})


def test_only_routed_videos_of_words_beyond_a_to_z_have_new_names():
    """Their scenes were compared by words of a to z alone; all others keep the names that they are stored by."""
    film, chinese = (Prompt("p", (text, text), (6.0, 6.0), ("", "@")) for text in ("a caf\u00e9", "\u7ea2\u72d0\u72f8"))
    plain = Prompt("p", ("it\u2019s \u201cred\u201d \u2014 2\u00d73", "b"), (6.0, 6.0), ("", "@"))
    for prompt, changed in ((film, True), (chinese, True), (plain, False)):
        before = {"run": "r", "prompt": prompt.content(), "group": None}
        assert identity.unit_key("r", prompt, None) == before
        assert (identity.unit_key("r", prompt, None, routed=True) != before) is changed

"""Downloads: the table, a local mirror, a server that speaks the hub's language and breaks off, and refusals in one line."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from baselines.presets import preset, prompt_set
from data import download
from data.download import LOCK
from data.hub import COMMIT, MANIFEST, HubFile, Table
from echo.scene import TagMeaning, load_prompts
from eval.metrics import TASKS
from jobs import cli
from jobs.spec.compose import one as one_config

COMMIT_1, COMMIT_2 = "1" * 40, "2" * 40
NETWORK, ENCODER, BRANCH, SMALL = (bytes(range(256)) * count for count in (4000, 900, 700, 3))


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def row(content: bytes | None) -> str:
    return "{size: null, sha256: null}" if content is None else f"{{size: {len(content)}, sha256: {digest(content)}}}"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A table of the same form as ours, with files of kilobytes."""
    path = tmp_path / "hub.yaml"
    path.write_text(
        f"""
sources:
  net: {{repo: someone/Net, revision: "{COMMIT_1}", license: mit, files: {{models/net.pt: {row(NETWORK)}}}}}
  wan: {{repo: other/Wan, revision: "{COMMIT_2}", license: mit, files: {{text.pth: {row(ENCODER)}, umt5/spiece.model: {row(SMALL)}}}}}
  new: {{repo: someone/New, revision: main, license: null, files: {{ema.pt: {row(None)}}}}}
groups:
  backbone: {{net: [net, wan], new: [new, wan]}}
""",
        encoding="utf-8",
    )
    return path


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    """A folder of files, each repository laid out another way."""
    folder = tmp_path / "mirror"
    cached = f"models--other--Wan/snapshots/{COMMIT_2}"
    files = {"someone/Net/models/net.pt": NETWORK, f"{cached}/text.pth": ENCODER, f"{cached}/umt5/spiece.model": SMALL, "ema.pt": BRANCH}
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def command(table: Path, *words: str) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(download, "TABLE", table)
        return cli.main(["data", "download", *words, f"checkpoints={table.parent / 'kept'}"])


def manifest(table: Path) -> dict[str, dict[str, object]]:
    return json.loads((table.parent / "kept" / MANIFEST).read_text(encoding="utf-8"))


@pytest.mark.parametrize("content", [b"\xf4", b'{"a":' * 100_000, b"[1]", b'{"net.pt": null}'])
def test_a_manifest_that_cannot_be_read_is_one_line(content: bytes, table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = table.parent / "kept" / MANIFEST
    path.parent.mkdir()
    path.write_bytes(content)
    assert command(table, "backbone=net", "--dry-run") == 2
    told = capsys.readouterr().err
    assert told.startswith(f"{path}:") and told.count("\n") == 1


def test_shipped_table_pins_what_it_can() -> None:
    table = Table()
    files = {wanted.target: wanted for source in table.sources.values() for wanted in source}
    unknown = {target for target, wanted in files.items() if not wanted.pinned or wanted.sha256 is None or wanted.size_bytes is None}
    by_first_download = {
        f"vbench/{name}" for name in ("amt/amt-s.pth", "viclip/ViClip-InternVid-10M-FLT.pth", "dreamsim/dreamsim_ensemble_checkpoint.zip")
    }
    by_first_download |= {
        "causal_forcing_framewise/framewise/causal_forcing.pt",
        "causal_forcing_2step/causal-forcing++/framewise-2step.pt",
    }
    by_first_download |= {"causvid/autoregressive_checkpoint/model.pt", "reward_forcing/rewardforcing.pt", "infinite_forcing/ema_model.pt"}
    by_first_download |= {f"sgf_{kind}/{kind}/ar/model.pt" for kind in ("chunkwise", "framewise")}
    by_first_download |= {f"{name}.pt" for name in ("memflow/base", "memflow/lora", "anchor_forcing/base", "anchor_forcing/final")}
    assert unknown == {"vbench/musiq/musiq_spaq_ckpt-358bb6af.pth", *by_first_download}
    for target, wanted in files.items():
        assert not Path(wanted.file).is_absolute() and ".." not in Path(target).parts
        assert wanted.sha256 is None or re.fullmatch("[0-9a-f]{64}", wanted.sha256), target
        assert wanted.repo is None or COMMIT.fullmatch(wanted.revision) or wanted.revision == "main"
        assert wanted.repo or COMMIT.search(wanted.url or "") or wanted.sha256 or target in by_first_download, target
    for name in table.groups["backbone"]:
        fetched = table.files("backbone", [name])
        assert {"wan/models_t5_umt5-xxl-enc-bf16.pth", "wan/Wan2.1_VAE.pth", "wan/google/umt5-xxl/tokenizer.json"} <= {
            w.target for w in fetched
        }
        assert sum(wanted.size_bytes or 0 for wanted in fetched) > 11e9


def test_local_mirror_total_first_then_files_then_nothing_to_do(table: Path, mirror: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = table.parent / "kept"
    assert command(table, "backbone=net", f"mirror={mirror}", "--dry-run") == 0
    assert not kept.exists()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("3 files, ") and "0 files there already, to fetch 3 files" in lines[0] and " free" in lines[0]
    assert command(table, "backbone=net", f"mirror={mirror}") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[4:]] == ["fetched"] * 3
    assert (kept / "net/models/net.pt").read_bytes() == NETWORK
    assert (kept / "wan/text.pth").read_bytes() == ENCODER
    rows = manifest(table)
    assert rows["net/models/net.pt"]["sha256"] == digest(NETWORK)
    assert (rows["wan/text.pth"]["revision"], rows["wan/text.pth"]["checked_against"]) == (COMMIT_2, "table")
    assert command(table, "backbone=net", "--verify") == 0  # no mirror, and nothing to ask the hub for
    lines = capsys.readouterr().out.splitlines()
    assert "3 files there already, to fetch 0 files" in lines[0] and [line.split()[0] for line in lines[1:]] == ["there"] * 3


def test_interrupted_copy_goes_on(table: Path, mirror: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import os

    def no_link(*_: object) -> None:
        raise OSError

    monkeypatch.setattr(os, "link", no_link)
    part = table.parent / "kept/.partial/net/models/net.pt"
    part.parent.mkdir(parents=True)
    part.write_bytes(NETWORK[:5000])
    assert command(table, "backbone=net", f"mirror={mirror}") == 0
    assert "5000 bytes of it begun" in capsys.readouterr().out
    assert (table.parent / "kept/net/models/net.pt").read_bytes() == NETWORK
    part.parent.mkdir(parents=True)
    part.write_bytes(b"?" * 5000)  # begun from another file: the sum tells, and the next command begins anew
    (table.parent / "kept/net/models/net.pt").unlink()
    assert command(table, "backbone=net", f"mirror={mirror}") == 1
    assert f"someone/Net@{COMMIT_1}/models/net.pt has {digest(NETWORK)}" in capsys.readouterr().err
    assert command(table, "backbone=net", f"mirror={mirror}") == 0


def test_what_another_command_has_begun_stays(table: Path, mirror: Path, capsys: pytest.CaptureFixture[str]) -> None:
    partial = table.parent / "kept/.partial"
    begun, own, folder = partial / "new/ema.pt", partial / "net/models/net.pt", partial / "old/empty"
    for part in (begun, own):
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(BRANCH[:3000])
    folder.mkdir(parents=True)
    (table.parent / "kept/net/models").mkdir(parents=True)
    (table.parent / "kept/net/models/net.pt").write_bytes(NETWORK)  # put there by hand, so what is begun of it is of no use
    assert command(table, "backbone=net", f"mirror={mirror}") == 0
    assert " begun" not in capsys.readouterr().out  # of what is to be fetched, nothing is
    assert [path for path in partial.rglob("*") if path.is_file()] == [begun] and begun.read_bytes() == BRANCH[:3000]
    assert not own.parent.exists() and not folder.exists()


def test_two_downloads_do_not_share_a_folder(table: Path, mirror: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from filelock import FileLock

    kept = table.parent / "kept"
    kept.mkdir()
    with FileLock(kept / LOCK):
        assert command(table, "backbone=net", f"mirror={mirror}") == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and f"{kept}: another download fetches into it" in error
        assert [path.name for path in kept.iterdir()] == [LOCK]
        assert command(table, "backbone=net", f"mirror={mirror}", "--dry-run") == 0
    assert command(table, "backbone=net", f"mirror={mirror}") == 0


def test_wrong_file_in_place_is_named_and_kept(table: Path, mirror: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = table.parent / "kept/net/models/net.pt"
    wrong.parent.mkdir(parents=True)
    for content, words in ((NETWORK[:-1], f"{len(NETWORK) - 1} bytes"), (NETWORK[:-1] + b"x", "sha256")):
        wrong.write_bytes(content)
        assert command(table, "backbone=net", f"mirror={mirror}") == 1
        error = capsys.readouterr().err
        assert str(wrong) in error and words in error and error.count("\n") == 1
        assert wrong.read_bytes() == content


class Hub(ThreadingHTTPServer):
    """The two addresses of the hub that a download asks for; after `left` more bytes of files the line goes dead."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.files = {("someone/Net", "models/net.pt"): NETWORK, ("other/Wan", "text.pth"): ENCODER}
        self.files |= {("other/Wan", "umt5/spiece.model"): SMALL, ("someone/New", "ema.pt"): BRANCH}
        self.head = COMMIT_1
        self.left: int | None = None
        self.asked: list[tuple[str, str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.server.asked.append((self.command, self.path, self.headers["Range"]))
        if model := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/(\w+)", self.path.partition("?")[0]):
            return self.describe(model[1])
        found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/(\w+)/(.+)", self.path)
        content = self.server.files.get((found[1], found[3])) if found else None
        if not found or content is None:
            return self.send_error(404)
        commit = self.server.head if found[2] == "main" else found[2]
        self.send(content, {"ETag": f'"{digest(content)}"', "X-Repo-Commit": commit, "X-Linked-Size": str(len(content))})
        return None

    def describe(self, repo: str) -> None:
        files = [(name, content) for (owner, name), content in self.server.files.items() if owner == repo]
        siblings = [
            {"rfilename": name, "size": len(c), "lfs": {"sha256": digest(c), "size": len(c), "pointerSize": 130}} for name, c in files
        ]
        self.send(json.dumps({"id": repo, "sha": self.server.head, "siblings": siblings}).encode(), {"Content-Type": "application/json"})

    def send(self, content: bytes, headers: dict[str, str]) -> None:
        start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-").split("-")[0]) if self.headers["Range"] else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        for name, value in {**headers, "Content-Length": str(len(content) - start), "Accept-Ranges": "bytes"}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            sent = content[start:]
            if self.server.left is not None and "/resolve/" in self.path:
                sent = sent[: self.server.left]
                self.server.left -= len(sent)
            self.wfile.write(sent)
            self.close_connection = True


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client neither waits between tries nor draws bars, and writes down every 50 000 bytes instead of every ten million."""
    import huggingface_hub.file_download
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    monkeypatch.setattr(huggingface_hub.file_download.constants, "DOWNLOAD_CHUNK_SIZE", 50_000)
    monkeypatch.setattr(huggingface_hub.file_download.time, "sleep", lambda seconds: None)


def test_hub_that_breaks_off_is_gone_on_with(table: Path, hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    hub.left = 300_000
    assert command(table, "backbone=net", f"mirror={hub.url}") == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"someone/Net@{COMMIT_1}/models/net.pt" in error and "what is begun is kept" in error
    assert (table.parent / "kept/.partial/net/models/net.pt").stat().st_size == 300_000
    hub.left, hub.asked = None, []
    assert command(table, "backbone=net", f"mirror={hub.url}") == 0
    ranges = [wanted for method, path, wanted in hub.asked if method == "GET" and path.endswith("net.pt")]
    assert ranges == ["bytes=300000-"]
    assert all(f"/resolve/{COMMIT_1}/" in path or f"/resolve/{COMMIT_2}/" in path for _, path, _ in hub.asked)
    assert (table.parent / "kept/net/models/net.pt").read_bytes() == NETWORK
    assert not (table.parent / "kept/.partial").exists()


def test_second_download_of_a_branch_is_pinned_to_the_first(table: Path, hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(table, "backbone=new", f"mirror={hub.url}") == 0
    assert f"new/ema.pt  {len(BRANCH)} bytes  someone/New@{COMMIT_1}" in capsys.readouterr().out
    first = manifest(table)["new/ema.pt"]
    assert (first["revision"], first["sha256"], first["checked_against"]) == (COMMIT_1, digest(BRANCH), "hub")
    (table.parent / "kept/new/ema.pt").unlink()
    hub.head, hub.asked = COMMIT_2, []
    assert command(table, "backbone=new", f"mirror={hub.url}") == 0
    assert [path for _, path, _ in hub.asked if "ema.pt" in path and COMMIT_1 not in path] == []
    hub.files["someone/New", "ema.pt"] = BRANCH[:-1] + b"x"  # the same commit cannot give other bytes unseen
    (table.parent / "kept/new/ema.pt").unlink()
    assert command(table, "backbone=new", f"mirror={hub.url}") == 1
    assert f"has {digest(BRANCH)}" in capsys.readouterr().err


def test_file_outside_the_hub_is_gone_on_with(tmp_path: Path, hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "hub.yaml"
    address = f"{hub.url}/someone/Net/resolve/{COMMIT_1}"
    source = f"{{url: '{address}', license: mit, files: {{models/net.pt: {row(NETWORK)}}}}}"
    table.write_text(f"sources: {{small: {source}}}\ngroups: {{decoder: {{small: [small]}}}}\n", encoding="utf-8")
    hub.left = 300_000
    assert command(table, "decoder=small") == 1
    assert capsys.readouterr().err.count("\n") == 1
    hub.left, hub.asked = None, []
    assert command(table, "decoder=small") == 0
    assert hub.asked == [("GET", f"/someone/Net/resolve/{COMMIT_1}/models/net.pt", "bytes=300000-")]
    assert (tmp_path / "kept/small/models/net.pt").read_bytes() == NETWORK


def test_prompt_files_become_sets_that_a_run_finds(tmp_path: Path, hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    """From an address outside the hub, by size and sha256, to the files that `task.prompts=released` reads."""
    tags = ("[10s#]", "[10s#]", "[10s@]", "[10s@]", "[10s@]", "[10s]")
    told = "\n".join(" | ".join(f"{place} {n}, a fox{tag}" for place, tag in zip("ABCABC", tags)) + "; a | b" for n in range(3)).encode()
    plain = "".join(f"A fox, number {number}\n" for number in range(9)).encode()
    hub.files |= {("someone/Net", "inter/recall.txt"): told, ("someone/Net", "plain.txt"): plain}
    table = tmp_path / "hub.yaml"
    address = f"{hub.url}/someone/Net/resolve/{COMMIT_1}"
    table.write_text(
        f"""
sources:
  prompts/theirs: {{url: '{address}', license: mit, files: {{inter/recall.txt: {row(told)}, plain.txt: {row(plain)}}}}}
groups:
  prompts: {{theirs: [prompts/theirs]}}
prompt_sets:
  theirs:
    recall: {{file: prompts/theirs/inter/recall.txt, format: released, tag_meaning: to_next}}
    long120: {{file: prompts/theirs/plain.txt, format: lines, duration: 120, sample: 4}}
""",
        encoding="utf-8",
    )
    assert command(table, "prompts=theirs", "--dry-run") == 0
    assert "from the addresses that follow" in capsys.readouterr().out and not (tmp_path / "kept").exists()
    assert command(table, "prompts=theirs") == 0
    folder = tmp_path / "kept/prompts/theirs"
    assert f"{folder}/recall.jsonl: 3 prompts; scenes 6; seconds 60; tags mean to_next" in capsys.readouterr().out
    recall, long120 = (load_prompts(folder / f"{task}.jsonl") for task in ("recall", "long120"))
    assert recall[1].scenes == tuple(f"{place} 1, a fox" for place in "ABCABC") and recall[1].tag_meaning is TagMeaning.to_next
    assert [str(way) for way in recall[0].transitions(TagMeaning.enter)[1:]] == ["hard", "hard", "recall", "recall", "recall"]
    assert len(long120) == 4 and {prompt.durations_s for prompt in long120} == {(120.0,)}
    hub.files["someone/Net", "plain.txt"] = plain[:-2] + b"!\n"  # of the same size: the sum tells, and no set is made of it
    (folder / "plain.txt").unlink()
    (folder / "long120.jsonl").unlink()
    assert command(table, "prompts=theirs") == 1
    assert f"has {digest(plain)}" in capsys.readouterr().err and not (folder / "long120.jsonl").exists()


def test_released_sets_land_where_the_configs_look() -> None:
    table = Table()
    fetched = {wanted.target for wanted in table.files("prompts", ["echo_forcing"])}
    sets = table.prompt_sets["echo_forcing"]
    assert {one.file for one in sets.values()} == fetched
    for task in TASKS:
        plain = one_config([f"task={task}", "task.prompts=released", "checkpoints=elsewhere"])
        assert plain["task"]["prompt_set"] == f"elsewhere/prompts/echo_forcing/{task}.jsonl" and task in sets
        own = one_config([f"task={task}", "backbone=self_forcing"])["task"]["prompt_set"]
        assert own == f"data/prompts/wan/{task}.jsonl" == prompt_set(task, "self_forcing")


REFUSED = (
    (["backbone=nett"], "backbone=nett: one of net, new; nearest is net"),
    (["backbones=net"], "backbones=net: not understood; nearest is backbone="),
    ([], "nothing to fetch is named; nearest is backbone=net"),
    (["backbone=net", "mirror=/nowhere/at/all"], "neither a folder nor an address"),
    (["backbone=net", "mirror=http://127.0.0.1:9"], "not fetched from http://127.0.0.1:9"),
    (["backbone=new", "mirror=http://127.0.0.1:9"], "not fetched from http://127.0.0.1:9"),
)


@pytest.mark.parametrize(("words", "told"), REFUSED, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_refusals_are_one_line(words: list[str], told: str, table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(table, *words) == (1 if "not fetched" in told else 2)
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1


def test_mirror_without_the_file_and_full_disk(
    table: Path, mirror: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    (mirror / "someone/Net/models/net.pt").unlink()
    assert command(table, "backbone=net", f"mirror={mirror}") == 1
    assert "no models/net.pt of someone/Net; looked for net/models/net.pt" in capsys.readouterr().err
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    assert command(table, "backbone=net") == 2
    assert "1 bytes free; nearest is checkpoints=DIR on a larger disk" in capsys.readouterr().err


def test_paths_of_the_backbones_are_where_files_land() -> None:
    table = Table()
    for name in table.groups["backbone"]:
        targets = {wanted.target for wanted in table.files("backbone", [name])}
        files = (value for value in re.findall(r"\$\{checkpoints\}/(\S+)", json.dumps(preset("backbone", name)).replace('"', " ")))
        for file in (value.rstrip(",}") for value in files):
            assert any(target == file or target.startswith(f"{file}/") for target in targets), f"{name}: {file}"


def test_every_network_of_vbench_is_fetched_to_where_it_is_looked_for(tmp_path: Path) -> None:
    """Files of the table, empty, in the places where a download puts them: nothing is missing any more."""
    from eval.vbench.kit import Files
    from eval.vbench.networks.interface import NETWORKS

    for wanted in Table().files("eval", ["vbench"]):
        (tmp_path / wanted.target).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / wanted.target).touch()
    source = Files(tmp_path / "vbench")
    source.check(tuple(NETWORKS), text=True)
    from eval.vbench.networks.vocabulary import find

    for wanted in Table().files("eval", ["vbench"]):
        if wanted.source in ("vbench/clip", "vbench/viclip"):
            assert find((tmp_path / wanted.target).parent) == tmp_path / "vbench" / "vocabulary" / "bpe_simple_vocab_16e6.txt.gz"
    (tmp_path / "vbench" / "amt" / "amt-s.pth").unlink()
    with pytest.raises(ValueError, match=r"amt-s.pth \(amt\) not there; `echo-harness data download eval=vbench"):
        source.check(tuple(NETWORKS), text=True)


@pytest.mark.parametrize(
    ("repo", "url", "host"),
    [("someone/Net", None, "https://huggingface.co"), (None, "https://dl.example.org/raft", "https://dl.example.org")],
)
def test_a_failed_download_blames_its_own_host(repo, url, host, monkeypatch):
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    wanted = HubFile("net", "a.pt", repo, COMMIT_1, url, None, None, None)
    assert f"not fetched from {host} (OSError: no route)" in str(download._unreachable(wanted, None, OSError("no route")))

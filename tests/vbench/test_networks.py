"""What networks refuse, that they read files safely, that a batch does not change an answer, and that text is cut as CLIP cuts it."""

import hashlib
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from eval.vbench import package
from eval.vbench.networks import catalogue, packages
from eval.vbench.networks.interface import NETWORKS
from eval.vbench.networks.weights import answer, digest, fill, read
from jobs.work import child

INSTALLED = not packages.missing(packages.PACKAGE)
needs_package = pytest.mark.skipif(not INSTALLED, reason="the vbench package is not installed; tests/vbench/run makes a place for it")


@pytest.fixture(scope="module")
def frames():
    return np.random.default_rng(3).integers(0, 256, (4, 128, 144, 3), dtype=np.uint8)


CALLS = {
    "dino": lambda net, f: net.images(f),
    "clip_b32": lambda net, f: net.images(f),
    "clip_l14": lambda net, f: net.images_bytes(f),
    "musiq": lambda net, f: net.quality(f),
    "raft": lambda net, f: net.radius(f[:-1], f[1:]),
    "amt": lambda net, f: net.error(f[:-2], f[1:-1], f[2:]),
}


@needs_package
@pytest.mark.parametrize("name", CALLS)
def test_an_answer_does_not_depend_on_its_batch(name, files, frames):
    net = catalogue.network_class(name).load(files[name])
    together = CALLS[name](net, frames)
    span = len(frames) - len(together) + 1
    alone = np.concatenate([CALLS[name](net, frames[start : start + span]) for start in range(len(together))])
    apart = np.abs(together - alone) / np.abs(together).max()
    assert apart.max() < 1e-5, f"{name}: largest {apart.max():.1e}, mean {apart.mean():.1e} of its own size"
    assert net.identity == f"sha256 {hashlib.sha256(files[name].read_bytes()).hexdigest()}" and net.dtype == "fp32"


@needs_package
@pytest.mark.parametrize("name", [name for name, known in NETWORKS.items() if known.package_path])
def test_another_networks_file_is_refused_by_name(name, files, tmp_path):
    others = {"dino": "clip_b32", "clip_b32": "clip_l14", "clip_l14": "clip_b32"}
    wrong = files[others.get(name, "dino")]
    with pytest.raises(ValueError, match=f"^{wrong} is not ") as refused:
        catalogue.network_class(name).load(wrong)
    assert "\n" not in str(refused.value)
    broken = tmp_path / "half.pth"
    broken.write_bytes(files[name].read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"half\.pth is not a weights file .* away with it, and fetch it again"):
        catalogue.network_class(name).load(broken)
    with pytest.raises(ValueError, match=r"no weights at .*gone\.pth; `echo-harness data download eval=vbench`"):
        catalogue.network_class(name).load(tmp_path / "gone.pth")


@needs_package
@pytest.mark.parametrize("name", ["raft", "amt"])
def test_small_frames_are_refused(name, files):
    net = catalogue.network_class(name).load(files[name])
    small = np.zeros((3, 120, 256, 3), np.uint8)
    with pytest.raises(ValueError, match="frames of 256x120 px; it answers NaN for a side under 128 px"):
        CALLS[name](net, small)


@needs_package
def test_both_namings_of_raft_are_the_same_network(files, tmp_path, frames):
    """torchvision's port has its own names; VBench gets it back by the authors'."""
    from eval.vbench.networks.raft import Raft

    theirs = Raft.load(files["raft"])
    torch.save(theirs.network.state_dict(), tmp_path / "port.pth")
    ported = Raft.load(tmp_path / "port.pth")
    assert np.array_equal(theirs.radius(frames[:1], frames[1:2]), ported.radius(frames[:1], frames[1:2]))
    back, published = package.authors_names(read(tmp_path / "port.pth")), read(files["raft"])
    assert set(back) == set(published)
    assert all(torch.equal(back[name], published[name]) for name in published)


@needs_package
def test_sentences_are_cut_as_openai_and_viclip_cut_them(files):
    import clip
    from vbench.third_party.ViCLIP.simple_tokenizer import SimpleTokenizer

    from eval.vbench.networks.vocabulary import tokens

    odd = [
        "a red fox",
        "  UPPER   case\n and\ttabs ",
        "it's 1234 o'clock, we'll see!!!",
        "caf\u00e9 na\u00efve \u65e5\u672c\u8a9e \U0001f98a",
        "&amp;lt;b&amp;gt; &#39;quoted&#39;",
        "\u00e2\u20ac\u0153broken\u00e2\u20ac\u009d",
        "",
    ]
    long = ["word " * number for number in (29, 30, 31, 74, 75, 76, 200)]
    mine, cut = tokens(odd + long, 77)
    assert torch.equal(mine, clip.tokenize(odd + long, truncate=True).long())
    assert cut == (0,) * 12 + (1, 125), cut
    mine, cut = tokens(odd + long, 32)
    theirs = SimpleTokenizer()
    for row, prompt in zip(mine.tolist(), odd + long, strict=True):
        ids = [49406, *theirs.encode(prompt), 49407]
        kept = ids if len(ids) <= 32 else [*ids[:31], 49407]
        assert row == kept + [0] * (32 - len(kept)), prompt
    assert cut[7:] == (0, 0, 1, 44, 45, 46, 170), cut


@needs_package
def test_text_features_are_openais(files):
    import clip

    from tests.helpers.vbench_files import PROMPTS

    model, _ = clip.load(str(files["clip_b32"]), device="cpu")
    with torch.no_grad():
        theirs = torch.nn.functional.normalize(model.encode_text(clip.tokenize(list(PROMPTS), truncate=True)), dim=-1).numpy()
    mine = catalogue.network_class("clip_b32").load(files["clip_b32"]).text(PROMPTS)
    apart = np.abs(mine.features - theirs)
    assert apart.max() < 1e-5, f"largest {apart.max():.1e}, mean {apart.mean():.1e}"


class Trap:
    """A checkpoint's object that would run code when it is read."""

    ran = False

    def __reduce__(self):
        return (setattr, (Trap, "ran", True))


def test_a_checkpoint_with_objects_gives_its_tensors_and_runs_nothing(tmp_path):
    torch.save({"state_dict": {"a": torch.arange(3.0)}, "config": Trap(), "step": np.float64(3)}, tmp_path / "mixed.pth")
    found = read(tmp_path / "mixed.pth", inside="state_dict")
    assert not Trap.ran and torch.equal(found["a"], torch.arange(3.0))
    pickle.loads(pickle.dumps(Trap()))
    assert Trap.ran, "the trap does not bite"


def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path):
    """Names of one's own may end in a date."""
    published, own = tmp_path / "musiq_spaq_ckpt-358bb6af.pth", tmp_path / "musiq-20230412.pth"
    for path in (published, own):
        path.write_bytes(b"anything")
    assert digest(own) == hashlib.sha256(b"anything").hexdigest()
    with pytest.raises(ValueError, match=r"its sha256 starts with 358bb6af, but it starts with ee087417: not that file"):
        digest(published)


def test_weights_that_do_not_fit_or_are_not_finite_are_refused(tmp_path):
    net = torch.nn.Linear(2, 1)
    with pytest.raises(
        ValueError, match=r"w is not a line: 1 missing \(first bias\), 1 unknown \(first c\), 1 misshapen \(first weight\) of 2"
    ):
        fill(
            net,
            {"weight": torch.zeros(1, 3), "c": torch.zeros(1)},
            what="a line",
            path=tmp_path.with_name("w").relative_to(tmp_path.parent),
        )
    with pytest.raises(ValueError, match="weight holds values that are not finite"):
        fill(net, {"weight": torch.full((1, 2), torch.nan), "bias": torch.zeros(1)}, what="a line", path=tmp_path)


def test_an_answer_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="raft answered NaN or infinity, first for item 1 of 3"):
        answer(torch.tensor([[1.0, 2.0], [torch.inf, 0.0], [torch.nan, 0.0]]), "raft")


def test_missing_packages_and_unknown_networks_are_named():
    assert packages.missing(("numpy", "nosuchpackage", "torch")) == ["nosuchpackage"]
    with pytest.raises(
        ValueError, match=r"eval=vbench needs nosuchpackage: pip install -e '\.\[vbench\]' && pip install --no-deps vbench=="
    ):
        packages.check(("nosuchpackage",))
    with pytest.raises(ValueError, match=r"RAFT needs nosuchpackage: pip install -e '\.\[vbench\]' && pip"):
        packages.need("nosuchpackage.flow", asked="RAFT")
    with pytest.raises(ValueError, match="network 'clip': one of dino, clip_b32, .* nearest is viclip"):
        catalogue.network_class("clip")


def test_the_package_is_asked_for_what_it_can_answer(tmp_path):
    video = tmp_path / "a.mp4"
    video.write_bytes(b"")
    rest = {"files": {}, "cache": tmp_path}
    with pytest.raises(ValueError, match=r"dimensions \['beauty'\]: the vbench package is asked for some of subject_consistency"):
        package.check(package.PackageJob((video,), ("",), ("beauty",), **rest))
    with pytest.raises(ValueError, match="1 videos and 0 prompts"):
        package.check(package.PackageJob((video,), (), ("temporal_flickering",), **rest))
    with pytest.raises(ValueError, match=r"a\.avi: the vbench package reads files that end in \.mp4"):
        package.check(package.PackageJob((tmp_path / "a.avi",), ("",), ("temporal_flickering",), **rest))
    with pytest.raises(ValueError, match="no weights of aesthetic, clip_l14 for the vbench package"):
        package.check(package.PackageJob((video,), ("",), ("aesthetic_quality",), **rest))
    weights = tmp_path / "dino.pth"
    weights.write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"dino_code=None: .* `git clone https://github\.com/facebookresearch/dino checkpoints/vbench/dino` fetches it"
    ):
        package.check(package.PackageJob((video,), ("",), ("subject_consistency",), {"dino": weights}, tmp_path))


@needs_package
def test_a_package_that_fails_says_why_and_where_its_log_is(tmp_path):
    video, setup = tmp_path / "a.mp4", tmp_path / "setup.py"
    video.write_bytes(b"")
    setup.write_text("raise RuntimeError('no flicker today')\n", encoding="utf-8")
    asked = package.PackageJob((video,), ("",), ("temporal_flickering",), {}, tmp_path / "cache", setup=setup)
    with pytest.raises(ValueError, match=r"the vbench package ended with 1: RuntimeError: no flicker today; its log is .*/log$"):
        package.evaluate(asked)


def test_differences_tell_where_they_are_largest(tmp_path):
    videos = [tmp_path / "a.mp4", tmp_path / "b.mp4"]
    found = package.differences({"x": [0.1, 0.5], "y": [0.0, 0.0]}, {"x": [0.1, 0.25]}, videos)
    assert list(found) == ["x"] and found["x"] == package.BackendDifference(0.25, 0.125, videos[1])
    assert package.lines(found) == ["x                        largest 2.5e-01  mean 1.2e-01  (b.mp4)"]


class Scripted(nn.Module):
    """A module with everything that a TorchScript archive may contain: a tensor that is no buffer, an integer, submodules."""

    def __init__(self) -> None:
        super().__init__()
        self.mask, self.free = torch.ones(3, 3), nn.Parameter(torch.randn(3))
        self.register_buffer("size", torch.tensor(7))
        self.blocks = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Sequential(nn.Linear(3, 3).half()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks[1](self.blocks[0](x) @ self.mask) * self.size + self.free


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("way", ["trace", "script"])
def test_a_torchscript_archive_is_read_and_not_run(way, tmp_path, monkeypatch):
    """Path 1: its pickle, read with weights only. Path 2: torch's own loader, which is a part of the program that it runs."""
    torch.manual_seed(0)
    module = Scripted().eval()
    made = torch.jit.trace(module, torch.ones(2, 3)) if way == "trace" else torch.jit.script(module)
    torch.jit.save(made, str(tmp_path / "clip.pt"))
    theirs = dict(torch.jit.load(str(tmp_path / "clip.pt")).state_dict())
    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("the program was loaded"))
    ours = read(tmp_path / "clip.pt")
    assert ours.keys() == theirs.keys() and "mask" not in ours and "blocks.2.0.weight" in ours
    assert all(torch.equal(ours[name], value) and ours[name].dtype == value.dtype for name, value in theirs.items())


@needs_package
@pytest.mark.parametrize("name", dict.fromkeys((*child.WAN, *child.VBENCH)))
def test_what_workers_import_before_they_fork_is_there(name):
    """A name that a package no longer has would cost each run seconds without any message."""
    assert packages.need(name, asked="a job").__name__ == name

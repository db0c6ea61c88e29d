"""Compiled pieces against the uncompiled network; results and refusals of attention kernels."""

from __future__ import annotations

import gc
import importlib
import shutil
import sys
import types
import weakref
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as fn

from echo.backbone import compiled, kernels
from echo.backbone.wan import TransformerLayer, WanConfig, WanModel
from echo.geometry import Geometry
from echo.noise import keyed_noise
from echo.rollout import Rollout
from echo.scene import Transition
from tests.helpers.compare import report
from tests.helpers.policies import make


@pytest.mark.slow
def test_compiling_changes_nothing_but_time(geometry: Geometry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Path 1: the uncompiled network. Path 2: its pieces compiled. Eleven blocks of Echo with the window full, then a hard switch."""
    if not compiled.compiler("cpu"):
        pytest.skip("no C++ compiler here (g++, clang++ or CXX)")
    from torch._dynamo.utils import counters
    from torch._inductor import config

    monkeypatch.setattr(config, "compile_threads", 1)
    monkeypatch.setattr(config.cpp, "simdlen", 1)  # compiles faster
    torch.manual_seed(7)
    model = WanModel(WanConfig(dim=32, ffn_dim=48, heads=2, layers=2, freq_dim=32, text_dim=16, text_len=6)).eval().requires_grad_(False)
    texts = torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(3))

    def run(network: WanModel) -> Tensor:
        rollout = Rollout(network, make("echo"), geometry, keyed_noise(0, ["p"], (3, 16, 4, 6)))
        latents = []
        for text, transition, blocks in ((texts[:1], None, 8), (texts[1:], Transition.hard, 3)):
            rollout.switch(text, transition)
            latents += [rollout.next().latents for _ in range(blocks)]
        return torch.cat(latents, 1)

    torch._dynamo.reset()
    counters.clear()
    fast = compiled.speed_up(model, "blocks")
    plain, compiled_ = run(model), run(fast)
    assert torch.allclose(plain, compiled_, atol=1e-5), report(plain, compiled_)
    assert not counters["graph_break"], f"a part of a layer is compiled whole: {counters['graph_break']}"
    assert counters["stats"]["unique_graphs"] == 2, f"layers share a graph before attention and one behind it: {counters['stats']}"
    assert fast.state_dict().keys() == model.state_dict().keys()
    assert all(a.data_ptr() == b.data_ptr() for a, b in zip(fast.state_dict().values(), model.state_dict().values(), strict=True))
    with torch.no_grad():
        model.blocks[1].ffn[0].weight.mul_(1.5)
    assert not torch.allclose(run(fast), plain, atol=1e-3), "each layer has its own weights, and a change of them counts"
    assert torch.allclose(run(fast), run(model), atol=1e-5)
    block = weakref.ref(fast.blocks[0])
    del fast
    assert block() is None, "what was compiled keeps no network"


@pytest.mark.parametrize(
    ("mode", "device", "words"),
    [
        ("block", "cpu", "compile 'block': one of none, blocks, graphs; nearest is 'blocks'"),
        ("graphs", "cpu", "CUDA graphs need a CUDA device, the network is on 'cpu'; nearest is 'blocks'"),
        ("blocks", "cuda", "torch needs triton on 'cuda' and finds none; nearest is 'none'"),
        ("blocks", "cpu", "a C.. compiler .* on 'cpu' and finds none; nearest is 'none'"),
    ],
)
def test_what_cannot_be_compiled_is_refused(mode: str, device: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "compiler", lambda device: False)
    with pytest.raises(ValueError, match=words):
        compiled.check(mode, device)


def test_a_compiled_network_goes_with_its_last_name(model: WanModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three gigabytes on a card must not wait for a collection. Nothing is compiled here before the first pass."""
    monkeypatch.setattr(compiled, "compiler", lambda device: True)
    fast = compiled.speed_up(model, "blocks")
    block, state = weakref.ref(fast.blocks[0]), fast.state_dict().keys()
    assert state == model.state_dict().keys() and isinstance(fast.blocks[0], TransformerLayer)
    gc.disable()
    try:
        del fast
        assert block() is None
    finally:
        gc.enable()


def test_as_it_is_costs_nothing(model: WanModel) -> None:
    assert compiled.speed_up(model, "none") is model
    with pytest.raises(ValueError, match="nearest is 'blocks'"):
        compiled.speed_up(model, "graphs")


@pytest.mark.parametrize(
    ("name", "device", "dtype", "words"),
    [
        ("flash2", "cuda", "bfloat16", "kernel 'flash2': one of auto, sdpa, cudnn, flash, flash3; nearest is 'flash'"),
        ("cudnn", "cpu", "bfloat16", "kernel 'cudnn': runs on a CUDA device only, not on 'cpu'; nearest is 'sdpa'"),
        ("flash", "cuda:1", "float32", "kernel 'flash': takes bfloat16 only, not float32; nearest is 'sdpa'"),
        ("flash3", "cuda", "bfloat16", "kernel 'flash3': FlashAttention-3 is not installed here .no module flash_attn_interface"),
    ],
)
def test_kernels_that_are_not_there_are_refused(name: str, device: str, dtype: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        kernels.resolve(name, device, dtype)


def test_auto_comes_to_a_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert kernels.resolve("auto", "cpu") == kernels.resolve("sdpa", "cpu") == kernels.resolve("auto", "cuda") == "sdpa"
    monkeypatch.syspath_prepend(tmp_path)
    module = tmp_path / "flash_attn_interface.py"
    for content, name in (("raise OSError('libcudart.so.11: cannot open\\nshared object')", "sdpa"), ("flash_attn_func = None", "flash3")):
        module.write_text(content, encoding="utf-8")
        kernels.lack_of_flash3.cache_clear()
        monkeypatch.delitem(sys.modules, "flash_attn_interface", raising=False)
        importlib.invalidate_caches()
        assert kernels.resolve("auto", "cuda:0") == name and kernels.resolve("auto", "cuda", "float32") == "sdpa"
        if name == "sdpa":
            with pytest.raises(ValueError, match=r"is installed here and does not import \(OSError: libcudart.so.11: cannot open\)"):
                kernels.resolve("flash3", "cuda")
            shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
    monkeypatch.delitem(sys.modules, "flash_attn_interface", raising=False)
    kernels.lack_of_flash3.cache_clear()


def test_a_name_is_the_same_on_every_machine_and_the_card_is_asked_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A login node and a node with a card name one run; only the process that computes opens the card."""
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: pytest.fail("naming a kernel opened the card"))
    assert kernels.resolve("cudnn", "cuda") == "cudnn"
    kernels.require("sdpa", "cuda")
    kernels.require("sdpa", "cpu")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 9))
    with pytest.raises(ValueError, match="needs compute capability 9.0, this GPU has 8.9; nearest is backbone.parts.kernel=sdpa"):
        kernels.require("flash3", "cuda")


@pytest.mark.parametrize("name", ["sdpa", "flash", "flash3"])
def test_every_kernel_is_the_same_attention(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Path 1: the kernel (torch's flash has a processor's version; FlashAttention-3 is played by a module of its name). Path 2: the
    soft maximum by hand."""
    q, k, v = torch.randn(3, 2, 5, 3, 16, generator=torch.Generator().manual_seed(0))

    def played(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return fn.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)).transpose(1, 2), q

    monkeypatch.setitem(sys.modules, kernels.FLASH3, types.SimpleNamespace(flash_attn_func=played))
    weights = torch.einsum("bnhd,bmhd->bhnm", q, k).div(4).softmax(-1)
    expected, ours = torch.einsum("bhnm,bmhd->bnhd", weights, v), kernels.attention(name)(q, k, v)
    assert torch.allclose(ours, expected, atol=1e-6), report(ours, expected)
    with pytest.raises(ValueError, match="resolve it first"):
        kernels.attention("auto")


def test_a_rollout_takes_a_kernel(model: WanModel, geometry: Geometry, texts: Tensor) -> None:
    calls = []

    def counted(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        calls.append(k.shape[1] // geometry.tokens_per_frame)
        return kernels.attention("sdpa")(q, k, v)

    def first(**options: object) -> Tensor:
        rollout = Rollout(model, make("echo"), geometry, keyed_noise(0, ["p"], (3, 16, 4, 6)), **options)
        rollout.switch(texts[:1])
        return torch.cat([rollout.next().latents for _ in range(2)], 1)

    assert torch.equal(first(), first(attention=counted))
    assert calls == [3] * 9 + [6] * 9, "two layers, four passes, and the clean one without its last"

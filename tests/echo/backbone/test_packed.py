"""The packed network against the network itself: one pass, whole rollouts, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from echo.backbone.packed import Network, PackedWan, pack
from echo.backbone.wan import WanConfig, WanModel
from echo.geometry import Geometry
from echo.noise import keyed_noise
from echo.rollout import Rollout
from echo.scene import Transition
from tests.helpers.compare import report
from tests.helpers.policies import make

SIZES = Geometry(layers=2, heads=4, head_dim=12, grid_height=2, grid_width=3)


@pytest.fixture(scope="module")
def network() -> WanModel:
    """Every weight away from its initial value, biases and norms included, so that none can be forgotten."""
    torch.manual_seed(4)
    model = WanModel(WanConfig(dim=48, ffn_dim=64, heads=4, layers=2, freq_dim=16, text_dim=10, text_len=5)).requires_grad_(False)
    for weights in model.parameters():
        weights.add_(torch.randn_like(weights) * 0.2)
    return model.eval()


@pytest.mark.parametrize("name", ["echo", "self_forcing_recache", "deep_forcing_official", "memflow"])
def test_rollouts_are_the_same(name: str, network: WanModel) -> None:
    """Path 1: `WanModel`. Path 2: `PackedWan`, same noise; two prompts at once, a cut, and where the policy wants it a recache."""
    text = torch.randn(3, 2, 5, 10, generator=torch.Generator().manual_seed(1))

    def run(model: Network) -> Tensor:
        rollout = Rollout(model, make(name), SIZES, keyed_noise(0, ["a", "b"], (3, 16, 4, 6)), batch=2)
        latents = []
        for scene, transition in enumerate((None, Transition.hard, Transition.smooth)):
            rollout.switch(text[scene], transition)
            latents += [rollout.next().latents for _ in range(9)]
        return torch.cat(latents, 1)

    plain, packed = run(network), run(PackedWan(network))
    assert torch.allclose(plain, packed, atol=1e-4), report(plain, packed)
    assert not torch.allclose(plain[0], plain[1], atol=0.1)


def test_keys_of_a_text_are_taken_out_of_the_layout(network: WanModel) -> None:
    text, packed = torch.randn(2, 3, 10, generator=torch.Generator().manual_seed(2)), PackedWan(network)
    for plain, ours in zip(network.text_keys(network.text_states(text)), packed.text_keys(packed.text_states(text)), strict=True):
        assert ours.shape == (2, 4, 5, 12) and torch.allclose(plain, ours, atol=1e-6), report(plain, ours)


def test_every_weight_counts(network: WanModel) -> None:
    """A packed network of changed weights gives another flow, whichever weight is changed, and the changed network's flow."""
    x, text = torch.randn(1, 3, 16, 4, 6), torch.randn(1, 5, 10)

    def flow(model: Network) -> Tensor:
        time = model.time_states(torch.full((1, 3), 500.0, dtype=torch.float64))
        return model(x, time, model.text_states(text), lambda layer, q, k, v: q.sin() + 2 * k + v)

    with torch.inference_mode():
        before = flow(PackedWan(network))
        for name, weights in network.named_parameters():
            kept = weights.clone()
            weights.copy_(weights + 0.1 * torch.randn(weights.shape, generator=torch.Generator().manual_seed(2)))
            packed, plain = flow(PackedWan(network)), flow(network)
            weights.copy_(kept)
            assert torch.allclose(packed, plain, atol=1e-4), f"{name}: {report(packed, plain)}"
            unseen = name.endswith("cross_attn.k.bias") and torch.allclose(packed, before, atol=1e-6)
            assert unseen or not torch.allclose(packed, before, atol=1e-5), name


def test_only_what_gains_is_packed(network: WanModel) -> None:
    assert isinstance(pack(network), PackedWan)
    half = WanModel(network.config).to(torch.bfloat16)
    long = WanModel(WanConfig(dim=48, ffn_dim=64, heads=4, layers=1, freq_dim=16, text_dim=10, text_len=512))
    assert pack(half) is half and pack(long) is long


def test_frames_of_different_noise_are_refused(network: WanModel) -> None:
    with pytest.raises(ValueError, match="one for all frames"):
        PackedWan(network).time_states(torch.tensor([[0.0, 0.0, 500.0]]))

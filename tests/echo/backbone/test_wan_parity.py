"""Our transformer against diffusers' `WanTransformer3DModel`: one block of frames, no cache, same weights, fp32."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as fn

from echo.backbone import rope
from echo.backbone.checkpoints.transformer import random_network
from echo.backbone.wan import WanConfig

CONFIG = WanConfig(dim=48, ffn_dim=80, heads=2, layers=3, freq_dim=32, text_dim=20, text_len=7)
FRAMES, HEIGHT, WIDTH = 3, 6, 8


def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Every token of the block sees every other, rotated at frames 0, 1, 2."""
    turn = rope.frame_table(range(FRAMES), HEIGHT // 2, WIDTH // 2, CONFIG.head_dim)
    q, k, v = (x.transpose(1, 2) for x in (rope.rotate(q, turn), rope.rotate(k, turn), v))
    return fn.scaled_dot_product_attention(q, k, v).transpose(1, 2)


class Sines(torch.nn.Module):
    """Cosines and sines of timesteps in float64, as Wan takes them; diffusers' own in fp32 cost 1e-5 of the flow at t = 1000."""

    def forward(self, timesteps: Tensor) -> Tensor:
        half = CONFIG.freq_dim // 2
        steps = np.outer(timesteps.double().numpy(), np.power(10000.0, -np.arange(half) / half))
        return torch.from_numpy(np.concatenate([np.cos(steps), np.sin(steps)], axis=-1)).float()


@pytest.fixture(scope="module")
def both() -> tuple[torch.nn.Module, torch.nn.Module]:
    """Ours, and diffusers' with the same weights under its own table of names."""
    from diffusers import WanTransformer3DModel
    from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

    ours = random_network(CONFIG, torch.float32, "cpu", seed=2)
    theirs = WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=CONFIG.heads, attention_head_dim=CONFIG.head_dim, in_channels=16, out_channels=16,
        text_dim=CONFIG.text_dim, freq_dim=CONFIG.freq_dim, ffn_dim=CONFIG.ffn_dim, num_layers=CONFIG.layers, cross_attn_norm=True,
        qk_norm="rms_norm_across_heads", eps=CONFIG.eps, rope_max_seq_len=16,
    )  # fmt: skip
    theirs.load_state_dict(convert_wan_transformer_to_diffusers(ours.state_dict()), strict=True)
    theirs.condition_embedder.timesteps_proj = Sines()
    return ours, theirs.eval()


@pytest.mark.parametrize("timesteps", [[1000.0] * 3, [625.0] * 3, [0.0] * 3, [937.5, 833.333, 0.0]], ids=str)
def test_flow_equals_diffusers(both: tuple[torch.nn.Module, torch.nn.Module], timesteps: list[float]) -> None:
    ours, theirs = both
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(1, FRAMES, 16, HEIGHT, WIDTH, generator=generator)
    text = torch.randn(1, CONFIG.text_len, CONFIG.text_dim, generator=generator)
    text[:, 5:] = 0  # rows past a prompt's end are zero, and attended to
    t = torch.tensor([timesteps])
    per_token = t.repeat_interleave(HEIGHT // 2 * (WIDTH // 2), dim=1)  # theirs takes a timestep for each token
    with torch.no_grad():
        mine = ours(latents, ours.time_states(t), ours.text_states(text[:, :5]), attend)
        other = theirs(latents.transpose(1, 2), per_token, text, return_dict=False)[0].transpose(1, 2)
    difference = (mine - other).abs()
    assert difference.max() <= 1e-5, f"max {difference.max():.1e}, mean {difference.mean():.1e}, values up to {other.abs().max():.1f}"
    assert other.std() > 0.1


def test_parity_would_notice(both: tuple[torch.nn.Module, torch.nn.Module]) -> None:
    """The bound is tight: one weight of one norm changed by a thousandth is already beyond it."""
    ours, _ = both
    latents, t = torch.randn(1, FRAMES, 16, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1)), torch.full((1, FRAMES), 625.0)
    with torch.no_grad():
        text = ours.text_states(torch.ones(1, 5, CONFIG.text_dim))
        before = ours(latents, ours.time_states(t), text, attend)
        weight = ours.blocks[1].self_attn.norm_k.weight
        weight[3] += 1e-3 * weight[3]
        after = ours(latents, ours.time_states(t), text, attend)
        weight[3] /= 1.001
    assert (after - before).abs().max() > 2e-5

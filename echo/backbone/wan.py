"""The causal Wan2.1 transformer in one class for all sizes. Parameter names are those of the Wan checkpoint.

The network has no cache: self-attention passes raw queries, keys and values (after qk-norm, before RoPE) to an `attend`
function, and the caller of the network decides what they attend to.

Shapes: B batch, F latent frames, C channels, H W latent cells, S tokens of a frame, N = F S, E width, L text rows.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, cast

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as fn

from echo.backbone.sizes import WanConfig as WanConfig
from echo.geometry import PATCH


class Attend(Protocol):
    """Self-attention of one layer: raw q, k, v [B, N, heads, head_dim] to the attended values, same shape."""

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor: ...


class Modulation(NamedTuple):
    """Six per-frame vectors [B, F, 1, E] of one block; the scales already carry their 1."""

    shift_attention: Tensor
    scale_attention: Tensor
    gate_attention: Tensor
    shift_mlp: Tensor
    scale_mlp: Tensor
    gate_mlp: Tensor


class TimeStates(NamedTuple):
    """Everything that the network derives only from a timestep, so that a few-step sampler derives it once."""

    blocks: tuple[Modulation, ...]
    head: tuple[Tensor, Tensor]


TextStates = tuple[tuple[Tensor, Tensor], ...]
"""Cross-attention keys and values of one scene, for each layer [B, heads, L, head_dim]."""


def sinusoid(timesteps: Tensor, dim: int) -> Tensor:
    """Cosines then sines of t * 10000^(-i / (dim/2)), float64 [..., dim]."""
    half = dim // 2
    omega = 10000.0 ** (-torch.arange(half, dtype=torch.float64, device=timesteps.device) / half)
    angle = timesteps.double().unsqueeze(-1) * omega
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


class RMSNorm(nn.Module):
    """RMS over the full width, in fp32; the weight is applied after the cast, as in Wan."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == self.weight.dtype == torch.float32:
            return fn.rms_norm(x, self.weight.shape, self.weight, self.eps)
        return fn.rms_norm(x.float(), self.weight.shape, None, self.eps).to(x.dtype) * self.weight


class Attention(nn.Module):
    """Projections of one attention; q and k are normalised over all heads at once."""

    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.q = nn.Linear(config.dim, config.dim)
        self.k = nn.Linear(config.dim, config.dim)
        self.v = nn.Linear(config.dim, config.dim)
        self.o = nn.Linear(config.dim, config.dim)
        self.norm_q = RMSNorm(config.dim, config.eps)
        self.norm_k = RMSNorm(config.dim, config.eps)

    def query(self, x: Tensor) -> Tensor:
        return self.norm_q(self.q(x)).unflatten(-1, (self.heads, -1))

    def key_value(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.norm_k(self.k(x)).unflatten(-1, (self.heads, -1)), self.v(x).unflatten(-1, (self.heads, -1))

    def text_states(self, text_BLE: Tensor) -> tuple[Tensor, Tensor]:
        k, v = self.key_value(text_BLE)
        return k.transpose(1, 2).contiguous(), v.transpose(1, 2).contiguous()

    def cross(self, x_BNE: Tensor, k_BHLD: Tensor, v_BHLD: Tensor) -> Tensor:
        """Attention to the text without a mask: Wan also attends to the padding rows."""
        out = fn.scaled_dot_product_attention(self.query(x_BNE).transpose(1, 2), k_BHLD, v_BHLD)
        return self.o(out.transpose(1, 2).flatten(2))


class TransformerLayer(nn.Module):
    """One transformer block: modulated self-attention, cross-attention to the text, modulated MLP."""

    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        self.modulation = nn.Parameter(torch.randn(1, 6, config.dim) / config.dim**0.5)
        self.self_attn = Attention(config)
        self.norm3 = nn.LayerNorm(config.dim, config.eps)
        self.cross_attn = Attention(config)
        self.ffn = nn.Sequential(nn.Linear(config.dim, config.ffn_dim), nn.GELU("tanh"), nn.Linear(config.ffn_dim, config.dim))
        self.eps = config.eps

    def modulate(self, x_BFSE: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return torch.addcmul(shift, fn.layer_norm(x_BFSE, x_BFSE.shape[-1:], eps=self.eps), scale)

    def ask(self, x: Tensor, m: Modulation) -> tuple[Tensor, Tensor, Tensor]:
        """The layer up to self-attention: raw q, k, v [B, N, heads, head_dim] of `x` [B, F, S, E]."""
        y = self.modulate(x, m.scale_attention, m.shift_attention).flatten(1, 2)
        return self.self_attn.query(y), *self.self_attn.key_value(y)

    def answer(self, x: Tensor, attended: Tensor, m: Modulation, text: tuple[Tensor, Tensor]) -> Tensor:
        """The layer after self-attention, [B, F, S, E]; `attended` [B, N, heads, head_dim]."""
        frames = x.shape[1:3]
        x = torch.addcmul(x, self.self_attn.o(attended.flatten(2)).unflatten(1, frames), m.gate_attention)
        x = x + self.cross_attn.cross(self.norm3(x).flatten(1, 2), *text).unflatten(1, frames)
        return torch.addcmul(x, self.ffn(self.modulate(x, m.scale_mlp, m.shift_mlp)), m.gate_mlp)

    def forward(self, x: Tensor, m: Modulation, text: tuple[Tensor, Tensor], layer: int, attend: Attend) -> Tensor:
        """`x` [B, F, S, E]."""
        return self.answer(x, attend(layer, *self.ask(x, m)), m, text)


class Head(nn.Module):
    """Modulated projection of tokens back to latent patches."""

    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        self.modulation = nn.Parameter(torch.randn(1, 2, config.dim) / config.dim**0.5)
        self.head = nn.Linear(config.dim, config.out_channels * PATCH[1] * PATCH[2])
        self.eps = config.eps

    def forward(self, x_BFSE: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return self.head(torch.addcmul(shift, fn.layer_norm(x_BFSE, x_BFSE.shape[-1:], eps=self.eps), scale))


class WanModel(nn.Module):
    """Flow prediction for blocks of latents: flow = noise - x0."""

    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embedding = nn.Conv3d(config.in_channels, config.dim, PATCH, PATCH)
        self.text_embedding = nn.Sequential(nn.Linear(config.text_dim, config.dim), nn.GELU("tanh"), nn.Linear(config.dim, config.dim))
        self.time_embedding = nn.Sequential(nn.Linear(config.freq_dim, config.dim), nn.SiLU(), nn.Linear(config.dim, config.dim))
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(config.dim, 6 * config.dim))
        self.blocks = nn.ModuleList(TransformerLayer(config) for _ in range(config.layers))
        self.head = Head(config)

    def time_states(self, timesteps_BF: Tensor) -> TimeStates:
        """Modulations of all layers for timesteps (0..1000) of each frame."""
        dtype = self.patch_embedding.weight.dtype
        e = self.time_embedding(sinusoid(timesteps_BF, self.config.freq_dim).to(dtype))
        e0 = self.time_projection(e).unflatten(-1, (6, -1))
        blocks = []
        for block in self.blocks:
            parts = (e0 + block.modulation).unsqueeze(3).unbind(2)
            blocks.append(Modulation(parts[0], 1 + parts[1], parts[2], parts[3], 1 + parts[4], parts[5]))
        shift, scale = (e.unsqueeze(2) + self.head.modulation).unsqueeze(3).unbind(2)
        return TimeStates(tuple(blocks), (1 + scale, shift))

    def text_states(self, text_BLT: Tensor) -> TextStates:
        """Cross-attention keys and values of all layers; rows up to `text_len` are zero-padded here.

        Raises ValueError for more rows than `text_len`.
        """
        rows = text_BLT.shape[1]
        if rows > self.config.text_len:
            raise ValueError(f"prompt of {rows} rows: the text encoder's limit is {self.config.text_len}")
        text = self.text_embedding(fn.pad(text_BLT, (0, 0, 0, self.config.text_len - rows)))
        return tuple(cast(TransformerLayer, block).cross_attn.text_states(text) for block in self.blocks)

    def text_keys(self, text: TextStates) -> list[Tensor]:
        """Cross-attention keys of all layers, [B, heads, L, head_dim] each, from `text_states`."""
        return [k for k, _ in text]

    def forward(self, latents_BFCHW: Tensor, time: TimeStates, text: TextStates, attend: Attend) -> Tensor:
        """Flow of the same shape as the latents."""
        height, width = latents_BFCHW.shape[-2:]
        patches = rearrange(
            latents_BFCHW, "batch frame channel (row p) (column q) -> batch frame (row column) (channel p q)", p=PATCH[1], q=PATCH[2]
        )
        x = fn.linear(patches, self.patch_embedding.weight.flatten(1), self.patch_embedding.bias)
        for layer, block in enumerate(self.blocks):
            x = block(x, time.blocks[layer], text[layer], layer, attend)
        return rearrange(
            self.head(x, *time.head),
            "batch frame (row column) (p q channel) -> batch frame channel (row p) (column q)",
            row=height // PATCH[1], column=width // PATCH[2], p=PATCH[1], q=PATCH[2],
        )  # fmt: skip

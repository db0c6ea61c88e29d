"""The same network laid out for one CPU thread: one product for q, k and v, and weights in oneDNN's memory order.

A block of a tiny backbone has forty-eight tokens, so that small matrix products and the calls of them dominate a pass. Here every
layer needs a third of them: modulation is merged with the normalisation, the text's values are multiplied by
the output projection once per scene, and weights are reordered once. Numbers differ from `WanModel`'s in their last bits.

Shapes: B batch, F latent frames, C channels, N tokens, E width, H heads, D head_dim, L text rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from echo.backbone.wan import Attend, Modulation, TransformerLayer, WanModel
from echo.geometry import PATCH

Linear = Callable[[Tensor], Tensor]
PackedText = tuple[tuple[Tensor, Tensor], ...]
"""For each layer: scaled keys [B, E, L H], block-diagonal by head; values after the output projection [B, L H, E]."""


@dataclass(frozen=True)
class PackedTime:
    """Modulations of a timestep that all frames share: six vectors [E] per layer, then scale and shift of the head."""

    blocks: tuple[Modulation, ...]
    head: tuple[Tensor, Tensor]


class Network(Protocol):
    """The interface of networks for rollouts: `WanModel`, or the same in another layout. Only the network reads its derived states."""

    @property
    def patch_embedding(self) -> nn.Conv3d: ...
    def time_states(self, timesteps_BF: Tensor, /) -> Any: ...
    def text_states(self, text_BLT: Tensor, /) -> Any: ...
    def text_keys(self, text: Any, /) -> Sequence[Tensor]: ...
    def __call__(self, latents_BFCHW: Tensor, time: Any, text: Any, attend: Attend, /) -> Tensor: ...


def pack(model: WanModel) -> Network:
    """The network in the faster layout, for fp32 on a CPU and short texts; else the network itself."""
    weight, config = model.patch_embedding.weight, model.config
    fits = weight.device.type == "cpu" and weight.dtype == torch.float32 and config.heads * config.text_len <= config.dim
    return PackedWan(model) if fits else model


class PackedWan:
    """Replaces a `WanModel` in a rollout; all frames of a pass must have the same timestep."""

    def __init__(self, model: WanModel) -> None:
        """Reorder the weights of `model`; later changes of `model` have no effect."""
        self._model, self.config, self.patch_embedding = model, model.config, model.patch_embedding
        with torch.inference_mode():
            self._layers = tuple(_Layer(cast(TransformerLayer, block)) for block in model.blocks)
            self._first = _linear(model.patch_embedding.weight.flatten(1), model.patch_embedding.bias)
            self._last = _linear(model.head.head.weight, model.head.head.bias)

    def time_states(self, timesteps_BF: Tensor) -> PackedTime:
        """Like `WanModel.time_states`. Raises ValueError for frames of different timesteps."""
        if not bool((timesteps_BF == timesteps_BF.flatten()[0]).all()):
            raise ValueError(f"timesteps {timesteps_BF.flatten().tolist()}: a pass has one for all frames here; `WanModel` takes several")
        states = self._model.time_states(timesteps_BF[:1, :1])
        blocks = tuple(Modulation(*(part.flatten().contiguous() for part in block)) for block in states.blocks)
        return PackedTime(blocks, (states.head[0].flatten().contiguous(), states.head[1].flatten().contiguous()))

    def text_states(self, text_BLT: Tensor) -> PackedText:
        """Like `WanModel.text_states`, laid out for one product before and after the softmax.

        Each prompt is computed alone: a product of so few rows is rounded otherwise beside others, unlike all products of a pass.
        """
        alone = []
        for row in text_BLT.split(1):
            states = self._model.text_states(row)
            alone.append([layer.text(*own) for layer, own in zip(self._layers, states, strict=True)])
        return tuple((torch.cat([k for k, _ in rows]), torch.cat([v for _, v in rows])) for rows in zip(*alone, strict=True))

    def text_keys(self, text: PackedText) -> list[Tensor]:
        """Like `WanModel.text_keys`."""
        heads, size = self.config.heads, self.config.dim // self.config.heads
        apart = [keys.unflatten(2, (-1, heads)).unflatten(1, (heads, size)).diagonal(0, 1, 4) for keys, _ in text]  # [B, D, L, H]
        return [keys.permute(0, 3, 2, 1) * size**0.5 for keys in apart]

    def __call__(self, latents_BFCHW: Tensor, time: PackedTime, text: PackedText, attend: Attend) -> Tensor:
        """Flow of the same shape as the latents."""
        batch, frames, _, height, width = latents_BFCHW.shape
        rows, columns, (_, p, q) = height // PATCH[1], width // PATCH[2], PATCH
        x = self._embed(latents_BFCHW)
        for index, layer in enumerate(self._layers):
            x = layer(x, time.blocks[index], text[index], index, attend)
        scale, shift = time.head
        flow = self._last(torch.layer_norm(x, scale.shape, scale, shift, self.config.eps))
        flow = flow.reshape(batch, frames, rows, columns, p, q, -1).permute(0, 1, 6, 2, 4, 3, 5)
        return flow.reshape(batch, frames, -1, height, width)

    def leave_states(self, latents_BFCHW: Tensor, time: PackedTime, text: PackedText, attend: Attend) -> None:
        """A pass whose flow nobody reads: it ends with the last layer's self-attention."""
        x, last = self._embed(latents_BFCHW), len(self._layers) - 1
        for index, layer in enumerate(self._layers[:-1]):
            x = layer(x, time.blocks[index], text[index], index, attend)
        self._layers[-1].ask(x, time.blocks[-1], last, attend)

    def _embed(self, latents_BFCHW: Tensor) -> Tensor:
        """Tokens [B, N, E] of the latents' patches."""
        batch, frames, channels, height, width = latents_BFCHW.shape
        rows, columns, (_, p, q) = height // PATCH[1], width // PATCH[2], PATCH
        cut = latents_BFCHW.reshape(batch, frames, channels, rows, p, columns, q).permute(0, 1, 3, 5, 2, 4, 6)
        return self._first(cut.reshape(batch, frames * rows * columns, channels * p * q))


class _Layer:
    """One transformer block."""

    def __init__(self, block: TransformerLayer) -> None:
        own, cross = block.self_attn, block.cross_attn
        self.heads, self.eps, self.norm_eps = own.heads, block.eps, own.norm_q.weight.new_tensor(own.norm_q.eps)
        self.width = block.norm3.normalized_shape
        self.qkv = _linear(torch.cat([own.q.weight, own.k.weight, own.v.weight]), torch.cat([own.q.bias, own.k.bias, own.v.bias]))
        self.norm, self.out = torch.stack([own.norm_q.weight, own.norm_k.weight]), _linear(own.o.weight, own.o.bias)
        self.norm3 = block.norm3.weight, block.norm3.bias, block.norm3.eps
        self.cross_q, self.cross_norm = _linear(cross.q.weight, cross.q.bias), cross.norm_q.weight
        self.cross_out = cross.o
        up, down = cast(nn.Linear, block.ffn[0]), cast(nn.Linear, block.ffn[2])
        self.up, self.down = _linear(up.weight, up.bias, gelu=True), _linear(down.weight, down.bias)

    def text(self, k_BHLD: Tensor, v_BHLD: Tensor) -> tuple[Tensor, Tensor]:
        """Scaled block-diagonal keys, and values after the output projection, whose bias is divided among the heads."""
        batch, heads, rows, size = k_BHLD.shape
        keys = k_BHLD.new_zeros(batch, heads, size, rows, heads)  # heads last, so that the softmax runs over contiguous vectors
        for head in range(heads):
            keys[:, head, ..., head] = k_BHLD[:, head].transpose(1, 2) / size**0.5
        values = v_BHLD @ self.cross_out.weight.T.reshape(heads, size, -1) + self.cross_out.bias / heads
        return keys.reshape(batch, heads * size, rows * heads), values.transpose(1, 2).reshape(batch, rows * heads, -1)

    def __call__(self, x: Tensor, m: Modulation, text: tuple[Tensor, Tensor], layer: int, attend: Attend) -> Tensor:
        """`x` [B, N, E]."""
        width, (batch, tokens, _) = self.width, x.shape
        attended = self.ask(x, m, layer, attend)
        x = torch.addcmul(x, self.out(attended.reshape(x.shape)), m.gate_attention)
        keys, values = text
        query = _rms(self.cross_q(torch.layer_norm(x, width, *self.norm3)), self.cross_norm, self.norm_eps)
        shares = torch.bmm(query, keys).view(batch, tokens, -1, self.heads).softmax(-2)
        x = torch.baddbmm(x, shares.view(batch, tokens, -1), values)
        hidden = self.up(torch.layer_norm(x, width, m.scale_mlp, m.shift_mlp, self.eps))
        return torch.addcmul(x, self.down(hidden), m.gate_mlp)

    def ask(self, x: Tensor, m: Modulation, layer: int, attend: Attend) -> Tensor:
        """Queries, keys and values of `x` [B, N, E], and what `attend` makes of them."""
        batch, tokens, size = x.shape
        heads = (batch, tokens, self.heads, size // self.heads)
        qkv = self.qkv(torch.layer_norm(x, self.width, m.scale_attention, m.shift_attention, self.eps))
        q, k = _rms(qkv[..., : 2 * size].view(batch, tokens, 2, size), self.norm, self.norm_eps).unbind(2)
        return attend(layer, q.view(heads), k.view(heads), qkv[..., 2 * size :].view(heads))


def _rms(x: Tensor, weight: Tensor, eps: Tensor) -> Tensor:
    """RMS normalisation of the last dimension; on a CPU it needs fewer passes over memory than `rms_norm`."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return (x * torch.addcmul(eps, length, length, value=1 / x.shape[-1]).rsqrt_()).mul_(weight)


def _linear(weight: Tensor, bias: Tensor | None, gelu: bool = False) -> Linear:
    """`x @ weight.T + bias`, then GELU if wanted, with reordered weights if oneDNN is available."""
    if not torch.backends.mkldnn.is_available():
        plain = weight.contiguous()
        return (lambda x: fn.gelu(fn.linear(x, plain, bias), approximate="tanh")) if gelu else (lambda x: fn.linear(x, plain, bias))
    ops: Any = torch.ops.mkldnn
    reordered, product = ops._reorder_linear_weight(weight.contiguous()), ops._linear_pointwise.default
    after, kind = ("gelu", "tanh") if gelu else ("none", "")
    return lambda x: product(x, reordered, bias, after, [], kind)

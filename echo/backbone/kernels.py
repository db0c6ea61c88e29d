"""Attention kernels by name. The resolved name is part of a run's identity, since kernels differ in their last bits.

sdpa: torch's scaled dot-product attention, which chooses an implementation. cudnn, flash: the same, restricted to one implementation.
flash3: FlashAttention-3 (arXiv 2407.08608) from its package `flash_attn_interface`, which needs a Hopper GPU. auto: flash3 if
it can be imported, else sdpa. The kernel applies to self-attention over the window; cross-attention to the text uses torch's choice.

Torch is imported where it is used: a config is checked without it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Protocol

from echo.refusals import nearest

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class AttentionKernel(Protocol):
    """Dense softmax attention of q [B, N, H, D] over k, v [B, M, H, D]; returns [B, N, H, D].

    bias [1, 1, 1, M]: added to the logits of each key, for all queries and heads; None for most plans. There is no mask.
    """

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, /) -> Tensor: ...


NAMES = ("auto", "sdpa", "cudnn", "flash", "flash3")
FLASH3 = "flash_attn_interface"
"""Module of FlashAttention-3."""
LEAST = {"cudnn": (8, 0), "flash": (8, 0), "flash3": (9, 0)}
"""Compute capability from which a kernel runs."""
NO_BIAS = "adds no bias to logits, which plans of this policy ask for"


def resolve(name: str, device: str | torch.device, dtype: str = "bfloat16", *, biased: bool = False) -> str:
    """The kernel that a run on `device` uses: `name`, or the kernel that `auto` means in this installation.

    biased: whether plans add to the logits of some frames, which sdpa alone does. No card is asked, so that a machine without one
    names the same run as the machine that computes it; `require` asks there.
    Raises ValueError for an unknown name and for a kernel that this kind of device, type, installation or policy cannot have.
    """
    if name not in NAMES:
        raise ValueError(f"kernel {name!r}: one of {', '.join(NAMES)}; nearest is {nearest(name, NAMES)!r}")
    if name == "auto":
        return "sdpa" if biased or _lack("flash3", str(device), dtype) else "flash3"
    lack = NO_BIAS if biased and name != "sdpa" else _lack(name, str(device), dtype)
    if lack:
        raise ValueError(f"kernel {name!r}: {lack}; nearest is 'sdpa'")
    return name


def _lack(name: str, device: str, dtype: str) -> str | None:
    """Why a kernel cannot run; None if it can."""
    if name == "sdpa":
        return None
    if not device.startswith("cuda"):
        return f"runs on a CUDA device only, not on {device!r}"
    if dtype not in ("bfloat16", "float16"):
        return f"takes bfloat16 only, not {dtype}"
    return lack_of_flash3() if name == "flash3" else None


@cache
def lack_of_flash3() -> str | None:
    """Why FlashAttention-3 cannot be imported; None if it can. An installation for another torch or CUDA is found but does not import."""
    try:
        importlib.import_module(FLASH3)
    except Exception as error:  # a library that does not load raises whatever it likes
        if isinstance(error, ModuleNotFoundError) and error.name == FLASH3:
            return f"FlashAttention-3 is not installed here (no module {FLASH3})"
        return f"FlashAttention-3 is installed here and does not import ({type(error).__name__}: {str(error).partition(chr(10))[0]})"
    return None


def require(name: str, device: str | torch.device) -> None:
    """Raises ValueError for a resolved kernel that this process's GPU does not support."""
    if name == "sdpa" or not str(device).startswith("cuda"):
        return
    import torch

    capability = torch.cuda.get_device_capability(torch.device(device))
    built = {"cudnn": torch.backends.cudnn.is_available, "flash": torch.backends.cuda.is_flash_attention_available}
    if capability < LEAST[name]:
        least, own = (".".join(map(str, version)) for version in (LEAST[name], capability))
        raise ValueError(f"kernel {name!r}: needs compute capability {least}, this GPU has {own}; nearest is backbone.parts.kernel=sdpa")
    if name in built and not built[name]():
        raise ValueError(f"kernel {name!r}: torch {torch.__version__} is built without it; nearest is backbone.parts.kernel=sdpa")


def attention(name: str) -> AttentionKernel:
    """The kernel of a resolved name. Raises ValueError for `auto` and unknown names."""
    from torch.nn import functional as fn

    def sdpa(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        return fn.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=bias).transpose(1, 2)

    if name == "sdpa":
        return sdpa
    if name in ("cudnn", "flash"):
        return _held_to(name, sdpa)
    if name == "flash3":
        return _flash3()
    raise ValueError(f"kernel {name!r}: resolve it first; one of {', '.join(NAMES[1:])}")


def _refuse(name: str, bias: Tensor | None) -> None:
    """Raises ValueError for a bias of a policy that does not set `biased`."""
    if bias is not None:
        raise ValueError(f"kernel {name!r}: {NO_BIAS}; let the policy say `biased`; nearest is backbone.parts.kernel=sdpa")


def _held_to(name: str, sdpa: AttentionKernel) -> AttentionKernel:
    """Torch's attention restricted to one implementation; torch raises if sizes do not suit it."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    backend = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION}[name]

    def held(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        _refuse(name, bias)
        with sdpa_kernel(backend):
            return sdpa(q, k, v)

    return held


def _flash3() -> AttentionKernel:
    """FlashAttention-3, whose layout is ours; some of its versions also return the log-sum-exp."""
    function: Callable[..., Tensor | tuple[Tensor, ...]] = importlib.import_module(FLASH3).flash_attn_func

    def flash3(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        _refuse("flash3", bias)
        out = function(q, k, v)
        return out[0] if isinstance(out, tuple) else out

    return flash3

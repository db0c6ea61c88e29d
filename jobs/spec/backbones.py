"""Backbones of Wan2.1's make in a run's config: what `auto` and `random` stand for, whether the files are there and fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from echo.backbone import extras, sizes
from echo.geometry import Geometry
from jobs.spec.config import RANDOM, PartsConfig, RunConfig, from_plain, located


def resolved(config: RunConfig) -> RunConfig:
    """The config with `auto` and `weights=random` put into its parts, so that a run's name tells what really ran.

    `auto` is the graphics card at the native geometry and the processor at the tiny one, whatever machine asks: a login node
    without a card names the same run as the node that computes it. Raises ValueError for choices that do not go together.
    """
    parts = config.backbone.parts
    if parts is None:
        for name, value, usual in (("weights", config.weights, "trained"), ("geometry", config.geometry, "native")):
            if value != usual:
                rule = "this backbone is trained, tiny and shipped" if config.backbone.name.startswith("tiny") else "it has no parts"
                taken = f"backbone={config.backbone.name} takes {name}={usual} alone ({rule}); nearest is backbone=self_forcing"
                raise ValueError(f"{name}={value}: {taken}")
        return config
    from echo.backbone import compiled, kernels

    device = ("cpu" if config.geometry == "tiny" else "cuda") if parts.device == "auto" else parts.device
    try:
        kernel = kernels.resolve(parts.kernel, device, config.backbone.dtype)
        compiled.check(parts.compile, device)
    except ValueError as error:
        raise ValueError(f"backbone.parts.{error}") from None
    text_device = device if parts.text_device == "auto" else parts.text_device
    changes: dict[str, object] = {"device": device, "text_device": text_device, "kernel": kernel}
    label, backbone = config.backbone.label, config.backbone
    if config.geometry == "tiny":
        size, native = sizes.SIZES["tiny"], sizes.SIZES["native"]
        if (parts.height_px, parts.width_px) == (native.height_px, native.width_px):  # frames that were asked for stay
            changes |= {"height_px": size.height_px, "width_px": size.width_px}
        label += ", tiny sizes"
    if config.weights == "random":
        changes |= dict.fromkeys(("text", "tokenizer", "codec"), RANDOM)
        backbone = dataclasses.replace(backbone, weights=RANDOM, lora=None)
        label += ", random weights"
    backbone = dataclasses.replace(backbone, label=label, parts=dataclasses.replace(parts, **changes))  # type: ignore[arg-type]
    return dataclasses.replace(config, backbone=backbone)


def parts_of(config: RunConfig) -> PartsConfig:
    """The parts of a backbone that has some."""
    parts = config.backbone.parts
    assert parts is not None
    return parts


def geometry(config: RunConfig) -> Geometry:
    """Geometry of a resolved config's backbone with parts."""
    parts = parts_of(config)
    return sizes.geometry(sizes.SIZES[config.geometry].network, parts.height_px, parts.width_px, parts.window_frames)


def check(config: RunConfig) -> None:
    """Refuse a backbone with parts whose files are not there or are not what they should be; no data of them is read.

    Raises ValueError: one line.
    """
    extras.check(f"backbone={config.backbone.name}")
    parts = parts_of(config)
    files = {"weights": config.backbone.weights, "lora": config.backbone.lora}
    files |= {f"parts.{name}": getattr(parts, name) for name in ("text", "tokenizer", "codec")}
    for name, path in files.items():
        if path is not None and path != RANDOM and not located(path).exists():
            raise ValueError(
                f"backbone.{name}={path}: no such file; `echo-harness data download backbone={config.backbone.name}` fetches it, "
                "checkpoints=DIR looks elsewhere, weights=random needs none"
            )
    if config.eval.scorer == "embedded":
        rule = f"reads videos of the embedded world, not those of backbone={config.backbone.name}; nearest is eval=none"
        raise ValueError(f"eval={config.eval.name}: {rule}")
    if config.backbone.weights == RANDOM:
        return
    from echo.backbone.checkpoints import transformer
    from echo.backbone.parts import taehv, umt5, vae

    network = sizes.SIZES[config.geometry].network
    transformer.check(located(config.backbone.weights), network)
    if config.backbone.lora is not None:
        transformer.check_lora(located(config.backbone.lora), network)
    umt5.check(located(parts.text), located(parts.tokenizer))
    (taehv if parts.decoder == "taehv" else vae).check(located(parts.codec))


def checked(plain: Mapping[str, Any]) -> RunConfig:
    """The config of a backbone with parts from composed plain values, resolved and checked. Raises ValueError: one line."""
    config = resolved(from_plain(plain))
    check(config)
    return config

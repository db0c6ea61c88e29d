"""Wan2.1 backbones in a run's config: resolution of `auto` and `random`, and checks of their files."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from baselines.presets import preset
from data import hub
from echo.backbone import extras, sizes
from echo.files import file_digest, judged_once
from echo.geometry import Geometry
from echo.refusals import Missing, lacks, refuse
from echo.scene import Prompt
from jobs.spec.config import RANDOM, PartsConfig, RunConfig, from_plain, located, looked_at

if TYPE_CHECKING:
    from echo.backbone.parts.tokens import Tokenizer


def resolved(config: RunConfig, *, biased: bool = False) -> RunConfig:
    """The config with `auto` and `weights=random` resolved in its parts, so that a run's name states what really ran.

    biased: whether the policy's plans have a bias, which not every kernel can add.
    `auto` is the GPU at the native geometry and the CPU at the tiny one, whatever the machine: a login node
    without a GPU names the same run as the node that computes it. Raises ValueError for incompatible choices.
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
        kernel = kernels.resolve(parts.kernel, device, config.backbone.dtype, biased=biased)
        compiled.check(parts.compile, device)
    except ValueError as error:
        raise ValueError(f"backbone.parts.{error}") from None
    text_device = device if parts.text_device == "auto" else parts.text_device
    changes: dict[str, object] = {"device": device, "text_device": text_device, "kernel": kernel}
    label, backbone = config.backbone.label, config.backbone
    if config.geometry == "tiny":
        size, native = sizes.SIZES["tiny"], sizes.SIZES["native"]
        if (parts.height_px, parts.width_px) == (native.height_px, native.width_px):  # an explicit size stays
            changes |= {"height_px": size.height_px, "width_px": size.width_px}
        label += ", tiny sizes"
    if config.weights == "random":
        _refuse_unread(config)
        changes |= dict.fromkeys(("text", "tokenizer", "codec"), RANDOM)
        backbone = dataclasses.replace(backbone, weights=RANDOM, lora=None)
        label += ", random weights"
    backbone = dataclasses.replace(backbone, label=label, parts=dataclasses.replace(parts, **changes))  # type: ignore[arg-type]
    return dataclasses.replace(config, backbone=backbone)


def _refuse_unread(config: RunConfig) -> None:
    """Raises ValueError in one line for files of parts together with `weights=random`, which reads none."""
    parts, usual = parts_of(config), preset("backbone", config.backbone.name)
    asked = {"weights": (config.backbone.weights, usual["weights"]), "lora": (config.backbone.lora, usual["lora"])}
    asked |= {f"parts.{name}": (getattr(parts, name), usual["parts"][name]) for name in ("text", "tokenizer", "codec")}
    for name, (value, own) in asked.items():
        if value not in (None, RANDOM, str(own).replace("${checkpoints}", config.checkpoints)):
            rule = "weights=random draws every part and reads no file; leave it out, or weights=trained"
            raise ValueError(f"backbone.{name}={value}: {rule}")


def parts_of(config: RunConfig) -> PartsConfig:
    """The parts of a Wan2.1 backbone."""
    parts = config.backbone.parts
    assert parts is not None
    return parts


def geometry(config: RunConfig) -> Geometry:
    """Geometry of a resolved config's backbone with parts."""
    parts = parts_of(config)
    network, frames = sizes.SIZES[config.geometry].network, config.backbone.frames_per_block
    return sizes.geometry(network, parts.height_px, parts.width_px, parts.window_frames, frames)


def missing(config: RunConfig) -> Iterator[Missing]:
    """Missing packages, then missing files, of a backbone with parts."""
    yield from lacks(lambda: extras.check(f"backbone={config.backbone.name}"))
    files = {"weights": config.backbone.weights, "lora": config.backbone.lora}
    files |= {f"parts.{name}": getattr(parts_of(config), name) for name in ("text", "tokenizer", "codec")}
    absent = {name: path for name, path in files.items() if path not in (None, RANDOM) and not located(path).exists()}
    if absent:
        (name, path), *_ = absent.items()
        download = f"echo-harness data download backbone={config.backbone.name}"
        rest = "checkpoints=DIR looks elsewhere, weights=random needs none"
        line = f"backbone.{name}={path}: no such file; `{download}` fetches it, {rest}{looked_at(str(path))}"
        yield Missing(line, f"{', '.join(name.removeprefix('parts.') for name in absent)} of backbone={config.backbone.name}", download)


def check(config: RunConfig) -> None:
    """Check the files of a backbone with parts.

    Files are checked by their headers first, then completely: those in `data/hub.yaml` by their sha256, others tensor by tensor, once.
    Raises ValueError in one line for a missing or wrong file.
    """
    refuse(missing(config))
    parts = parts_of(config)
    if config.eval.scorer == "embedded":
        rule = f"reads videos of the embedded world, not those of backbone={config.backbone.name}; nearest is eval=none"
        raise ValueError(f"eval={config.eval.name}: {rule}")
    if config.backbone.weights == RANDOM:
        return
    from echo.backbone.checkpoints import additions, transformer
    from echo.backbone.parts import taehv, umt5, vae

    network = sizes.SIZES[config.geometry].network
    checks: list[tuple[str, Path, Callable[..., object]]] = [
        ("network", located(config.backbone.weights), partial(transformer.check, config=network)),
        ("text", located(parts.text), partial(umt5.check, tokenizer=located(parts.tokenizer))),
        (parts.decoder, located(parts.codec), (taehv if parts.decoder == "taehv" else vae).check),
    ]
    if config.backbone.lora is not None:
        checks.insert(
            1, ("additions", located(config.backbone.lora), partial(additions.check_lora, layers=transformer.linear_layers(network)))
        )
    for _, file, judge in checks:
        judge(file)
    hub.published(located(parts.tokenizer), hub.shipped())
    for kind, file, judge in checks:
        if hub.published(file, hub.shipped()) is None:
            judged_once(file, kind, partial(judge, file, whole=True))


def check_texts(config: RunConfig, prompts: Sequence[Prompt]) -> None:
    """Raises ValueError in one line for prompts that the text encoder of a checked backbone with parts cannot read completely."""
    from echo.backbone.parts import tokens, umt5

    tokenize = tokenizer(config)
    for prompt in prompts:
        for text in prompt.scenes:
            try:
                tokens.refuse_long(text, tokenize(umt5.clean(text)))
            except ValueError as error:
                raise ValueError(f"prompt {prompt.id!r}: {error}") from None


def notes(configs: Iterable[RunConfig]) -> list[str]:
    """Notes on checked networks that fit by shape but seem wrong: another network, or one for other blocks."""
    distinct = {(one.backbone.name, one.backbone.weights, one.backbone.lora): one for one in configs if one.backbone.parts}
    return [line for config in distinct.values() for line in _notes(config)]


def _notes(config: RunConfig) -> Iterator[str]:
    from echo.backbone.checkpoints.weights import CAUSAL, NETWORK, open_weights

    own = hub.shipped().groups["backbone"].get(config.backbone.name)
    for name, file in (("weights", config.backbone.weights), ("lora", config.backbone.lora)):
        row = None if file in (None, RANDOM) else hub.published(located(file), hub.shipped())
        if row is not None and own is not None and row.source not in own:
            yield f"note: backbone.{name}={file}: by its sha256 it is of {row.source}, not of {config.backbone.name}"
    if config.backbone.weights == RANDOM:
        return
    path, frames = located(config.backbone.weights), geometry(config).frames_per_block
    said = open_weights(path).said
    kind, trained = said.get("_class_name"), said.get("num_frame_per_block")
    if kind in NETWORK.classes and kind not in CAUSAL:
        rule = f"a causal one ({CAUSAL[0]}) is rolled out here, and shapes do not tell them apart"
        yield f"note: backbone.weights={path}: config.json says {kind}, which attends to the whole video; {rule}"
    if trained not in (None, frames):
        yield f"note: backbone.weights={path}: config.json says num_frame_per_block {trained}; blocks are of {frames} frames here"


def tokenizer(config: RunConfig) -> Tokenizer:
    """The tokenizer of a checked backbone with parts. Raises ValueError for foreign files."""
    from echo.backbone.parts import tokens

    parts = parts_of(config)
    if parts.text == RANDOM:
        return tokens.pieces(sizes.RANDOM_TEXT[config.geometry].vocabulary)
    files = located(parts.text), located(parts.tokenizer)
    return _tokenizer(*files, *map(file_digest, files))


@lru_cache(maxsize=2)
def _tokenizer(text: Path, tokenizer: Path, *content: str) -> Tokenizer:
    """The tokenizer of an encoder's files, cached by their content for the jobs of a sweep."""
    from echo.backbone.parts import umt5

    read = umt5.check(text, tokenizer)
    return dataclasses.replace(read, numbers=lru_cache(maxsize=2**16)(read.numbers))


def checked(plain: Mapping[str, Any], *, biased: bool = False) -> RunConfig:
    """The config of a backbone with parts from composed plain values, resolved and checked. Raises ValueError in one line."""
    config = resolved(from_plain(plain), biased=biased)
    check(config)
    return config

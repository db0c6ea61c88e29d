"""Files of weights in every format that is read, written from a known network."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as fn

from echo.backbone.checkpoints.transformer import network_shapes, random_network
from echo.backbone.extras import need
from echo.backbone.sizes import SIZES
from echo.backbone.wan import WanConfig
from tests.helpers.toy import write_prompts

State = dict[str, Tensor]
Write = Callable[[Path, State], Path]
TEXT = "A ferry mechanic tightens a valve ."
"""What the tokenizer of `write_parts` knows."""


def wrapped(state: State, prefix: str = "model.") -> State:
    return {prefix + name: value for name, value in state.items()}


def sharded_by_fsdp(state: State) -> State:
    """Names as FSDP leaves them, around the network and around every part of a block."""
    mark = "_fsdp_wrapped_module."
    return {f"model.{mark}" + name.replace("_attn.", f"_attn.{mark}"): value for name, value in state.items()}


def of_diffusers(state: State) -> State:
    """By diffusers' own table."""
    from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

    return convert_wan_transformer_to_diffusers(dict(state))


def zeros(state: State) -> State:
    return {name: torch.zeros_like(value) for name, value in state.items()}


def torch_file(content: Callable[[State], object], **options: bool) -> Write:
    def write(folder: Path, state: State) -> Path:
        torch.save(content(state), folder / "weights.pt", **options)
        return folder / "weights.pt"

    return write


def safetensors_file(names: Callable[[State], State]) -> Write:
    def write(folder: Path, state: State) -> Path:
        save_file(names(state), folder / "weights.safetensors")
        return folder / "weights.safetensors"

    return write


def diffusers_folder(shards: int, below: str = "") -> Write:
    def write(folder: Path, state: State) -> Path:
        inner = folder / below
        inner.mkdir(exist_ok=True)
        (inner / "config.json").write_text(json.dumps({"_class_name": "WanTransformer3DModel", "num_layers": 2}))
        items = list(of_diffusers(state).items())
        if shards == 1:
            save_file(dict(items), inner / "diffusion_pytorch_model.safetensors")
            return folder
        names = [f"diffusion_pytorch_model-{i + 1:05d}-of-{shards:05d}.safetensors" for i in range(shards)]
        for i, name in enumerate(names):
            save_file(dict(items[i::shards]), inner / name)
        index = {"metadata": {}, "weight_map": {key: names[i % shards] for i, (key, _) in enumerate(items)}}
        (inner / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
        return folder

    return write


def wan_folder(folder: Path, state: State) -> Path:
    """The release of Wan: the network lies beside the text encoder and the VAE."""
    save_file(state, folder / "diffusion_pytorch_model.safetensors")
    torch.save({"token_embedding.weight": torch.ones(2, 2)}, folder / "models_t5_umt5-xxl-enc-bf16.pth")
    (folder / "config.json").write_text(json.dumps({"_class_name": "WanModel", "dim": 32}))
    return folder


FORMATS: dict[str, Write] = {
    "self_forcing": torch_file(lambda state: {"generator": wrapped(zeros(state)), "generator_ema": wrapped(state), "step": 600}),
    "infinite_forcing": torch_file(lambda state: {"generator_ema": sharded_by_fsdp(state)}),
    "causal_forcing": torch_file(lambda state: {"generator": wrapped(state), "critic": wrapped(zeros(state))}),
    "causal_forcing_framewise": torch_file(lambda state: {"generator_ema": sharded_by_fsdp(state)}),
    "sgf": torch_file(lambda state: {"generator": sharded_by_fsdp(zeros(state)), "generator_ema": sharded_by_fsdp(state), "critic": {}}),
    "causvid": torch_file(lambda state: {"generator": wrapped(state)}),
    "longlive_base": torch_file(lambda state: {"generator": wrapped(state, "module.model.")}),
    "compiled": torch_file(lambda state: wrapped(state, "_orig_mod.model.")),
    "no_average_kept": torch_file(lambda state: {"generator_ema": {}, "generator": wrapped(state), "step": 600}),
    "bare": torch_file(lambda state: state),
    "bare_with_counters": torch_file(lambda state: state | {"step": torch.tensor(600), "done": torch.tensor(True)}),
    "safetensors_with_counters": safetensors_file(lambda state: state | {"step": torch.tensor(600)}),
    "bare_before_2020": torch_file(lambda state: state, _use_new_zipfile_serialization=False),
    "safetensors": safetensors_file(lambda state: state),
    "comfy": safetensors_file(lambda state: wrapped(state, "model.diffusion_model.")),
    "diffusers_file": safetensors_file(of_diffusers),
    "diffusers_folder": diffusers_folder(1),
    "diffusers_shards": diffusers_folder(3),
    "diffusers_pipeline": diffusers_folder(2, "transformer"),
    "wan_folder": wan_folder,
}


def shaped(shapes: dict[str, tuple[int, ...]]) -> Write:
    return safetensors_file(lambda state: {name: torch.ones(shape) for name, shape in shapes.items()})


def true_size_file(path: Path, config: WanConfig) -> Path:
    """A bfloat16 checkpoint of the given sizes with a true header, whose numbers are a hole in the file."""
    header, end = {}, 0
    for name, shape in network_shapes(config).items():
        begin, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    return path


def forward(model: torch.nn.Module, config: WanConfig) -> Tensor:
    """Flow of one block; attention without positions."""

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return fn.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)).transpose(1, 2)

    generator = torch.Generator().manual_seed(4)
    latents = torch.randn(1, 3, config.in_channels, 4, 6, generator=generator)
    text = model.text_states(torch.randn(1, 5, config.text_dim, generator=generator))
    return model(latents, model.time_states(torch.full((1, 3), 625.0)), text, attend)


def write_parts(folder: Path) -> Path:
    """All files of a backbone with parts in its tiny sizes, and a prompt of two scenes: network, text encoder, tokenizer and codec."""
    diffusers, tokenizers, transformers = need("diffusers"), need("tokenizers"), need("transformers")
    save_file(random_network(SIZES["tiny"].network, torch.float32, "cpu").state_dict(), folder / "network.safetensors")
    sizes = {"vocab_size": 64, "d_model": 32, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 4, "feed_forward_proj": "gated-gelu"}
    transformers.UMT5EncoderModel(transformers.UMT5Config(**sizes)).save_pretrained(folder / "text")
    vocabulary = {word: number for number, word in enumerate(["<pad>", "</s>", "<unk>", *dict.fromkeys(TEXT.split())])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(0)
    diffusers.AutoencoderKLWan(base_dim=4).save_pretrained(folder / "vae")
    write_prompts(folder / "prompts.jsonl", 1, texts=(TEXT, TEXT))
    return folder

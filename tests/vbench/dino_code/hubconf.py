"""Stands where VBench looks for a checkout of facebookresearch/dino: the same vision transformer, which the dreamsim package carries.

Only the way in is ours: as in DINO's own hubconf, weights come from torch's hub cache, and sizes from them.
"""

import importlib.util
from functools import partial
from pathlib import Path

import torch

dependencies = ["torch"]
URL = "https://dl.fbaipublicfiles.com/dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth"


def dino_vitb16(pretrained=True, **kwargs):
    found = importlib.util.find_spec("dreamsim")
    path = Path(found.submodule_search_locations[0]) / "feature_extraction" / "vision_transformer.py"
    spec = importlib.util.spec_from_file_location("dino_vision_transformer", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tensors = torch.hub.load_state_dict_from_url(URL, map_location="cpu")
    width, depth = tensors["cls_token"].shape[-1], sum(name.endswith("norm1.weight") for name in tensors)
    model = module.VisionTransformer(
        patch_size=16,
        embed_dim=width,
        depth=depth,
        num_heads=width // 64,
        mlp_ratio=4,
        qkv_bias=True,
        norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
        num_classes=0,
    )
    model.load_state_dict(tensors, strict=True)
    return model

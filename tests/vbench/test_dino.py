"""DINOv2 through transformers against timm's, from one file with DINOv2's own names."""

import numpy as np
import pytest
import torch

from eval.vbench.networks import catalogue, packages
from eval.vbench.networks.interface import NETWORKS

needs_timm = pytest.mark.skipif(
    bool(packages.missing(packages.NATIVE)), reason="timm is not installed; tests/vbench/run makes a place for it"
)


def published(width, blocks):
    """Random tensors by the names and shapes of `dinov2_vitb14_pretrain.pth`, which is trained at 518 px."""
    from tests.helpers.vbench_files import dino_shapes, draw

    shapes = dino_shapes((width, blocks)) | {"pos_embed": (1, 1370, width), "mask_token": (1, width)}
    shapes |= {"patch_embed.proj.weight": (width, 3, 14, 14)}
    shapes |= {f"blocks.{number}.ls{half}.gamma": (width,) for number in range(blocks) for half in (1, 2)}
    generator = torch.Generator().manual_seed(5)
    return {name: draw(shape, name, generator) for name, shape in shapes.items()}


@needs_timm
def test_dinov2_is_timms(tmp_path):
    from eval.vbench.networks import images
    from eval.vbench.networks.dino import positions

    tensors = published(128, 2)
    torch.save(tensors, tmp_path / "dinov2.pth")
    mine = catalogue.network_class("dinov2").load(tmp_path / "dinov2.pth")
    frames = np.random.default_rng(0).integers(0, 256, (3, 256, 256, 3), dtype=np.uint8)
    theirs = packages.need("timm.models.vision_transformer", asked="the test").VisionTransformer(
        img_size=224, patch_size=14, embed_dim=128, depth=2, num_heads=2, init_values=1e-5, num_classes=0, global_pool="token"
    )
    plain = {name: value for name, value in tensors.items() if name != "mask_token"}
    theirs.load_state_dict(plain | {"pos_embed": positions(tensors["pos_embed"], 16, 16)}, strict=True)
    pixels = images.middle(images.planes(frames, torch.device("cpu")).float(), 224)
    with torch.no_grad():
        seen = theirs.eval()(images.normalised(pixels, images.IMAGENET_MEAN, images.IMAGENET_STD))
    apart = np.abs(mine.images(frames) - torch.nn.functional.normalize(seen, dim=-1).numpy())
    assert apart.max() < 1e-5, f"largest {apart.max():.1e}, mean {apart.mean():.1e}"


@pytest.mark.skipif(
    bool(packages.missing(NETWORKS["dreamsim"].modules)), reason="DreamSim's packages are not all installed; tests/vbench/run has them"
)
def test_dreamsims_line_gives_a_dreamsim_that_imports():
    assert callable(packages.need("dreamsim", asked="DreamSim").dreamsim)

"""Runs first in the package's process: ViCLIP with one small block each side, where the package writes 428 million in."""

import vbench.third_party.ViCLIP.viclip as package
from vbench.third_party.ViCLIP.viclip_text import CLIP_TEXT
from vbench.third_party.ViCLIP.viclip_vision import VisionTransformer


def small_vision(input_resolution, kernel_size, num_frames, **_):
    sizes = {"input_resolution": input_resolution, "kernel_size": kernel_size, "num_frames": num_frames}
    return VisionTransformer(patch_size=14, width=64, layers=2, heads=1, output_dim=32, **sizes).eval()


def small_text(context_length, vocab_size, **_):
    sizes = {"transformer_width": 64, "transformer_heads": 1, "transformer_layers": 2, "checkpoint_num": 0}
    return CLIP_TEXT(embed_dim=32, context_length=context_length, vocab_size=vocab_size, **sizes).eval()


package.clip_joint_l14, package.clip_text_l14 = small_vision, small_text

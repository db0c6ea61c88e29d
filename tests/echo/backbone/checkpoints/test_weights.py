"""What lies behind a right header: holes, unfinished downloads, other kinds of files, folders of all parts; one line for each."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from echo.backbone.checkpoints import transformer
from echo.backbone.checkpoints.additions import check_lora
from echo.backbone.extras import need
from echo.backbone.parts import umt5, vae
from echo.backbone.wan import WanModel
from tests.helpers.checkpoints import FORMATS, State, diffusers_folder

Damage = Callable[[Path, State], Path]


def zeroed(path: Path, start: int, end: int) -> Path:
    content = bytearray(path.read_bytes())
    content[start:end] = bytes(end - start)
    path.write_bytes(content)
    return path


def second_half(folder: Path, state: State) -> Path:
    path = FORMATS["safetensors"](folder, state)
    return zeroed(path, path.stat().st_size // 2, path.stat().st_size)


def shard_of_zeros(folder: Path, state: State) -> Path:
    diffusers_folder(3)(folder, state)
    path = folder / "diffusion_pytorch_model-00002-of-00003.safetensors"
    zeroed(path, 8 + int.from_bytes(path.read_bytes()[:8], "little"), path.stat().st_size)
    return folder


def torch_hole(folder: Path, state: State) -> Path:
    """64 bytes in the middle of one tensor: no matrix is zero, the sum of the entry is wrong."""
    path = FORMATS["bare"](folder, state)
    with zipfile.ZipFile(path) as archive:
        entry = max(archive.infolist(), key=lambda entry: entry.file_size)
    middle = entry.header_offset + 1024 + entry.file_size // 2
    return zeroed(path, middle, middle + 64)


HOLES: dict[str, tuple[Damage, str]] = {
    "safetensors": (second_half, "is a matrix of zeros alone; download it again"),
    "shard": (shard_of_zeros, "is a matrix of zeros alone; download it again"),
    "torch": (torch_hole, "Bad CRC-32 for file"),
}


@pytest.mark.parametrize("name", HOLES)
def test_a_hole_behind_a_right_header_is_found(name: str, tmp_path: Path, model: WanModel) -> None:
    damage, words = HOLES[name]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    path = damage(tmp_path, state)
    transformer.check(path, model.config)
    with pytest.raises(ValueError, match=words) as refusal:
        transformer.check(path, model.config, whole=True)
    assert str(refusal.value).startswith(str(path)) and "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_right_is_right_whole(name: str, tmp_path: Path, model: WanModel) -> None:
    transformer.check(FORMATS[name](tmp_path, model.state_dict()), model.config, whole=True)


def test_a_file_without_sums_is_read_all_the_same(tmp_path: Path, model: WanModel) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        path = FORMATS["bare"](tmp_path, model.state_dict())
    finally:
        torch.serialization.set_crc32_options(True)
    transformer.check(path, model.config, whole=True)


@pytest.mark.parametrize("ending", [".aria2", ".part", ".incomplete", ".crdownload"])
@pytest.mark.parametrize("name", ["bare", "safetensors", "diffusers_shards"])
def test_a_download_that_is_not_finished_is_refused_by_name(name: str, ending: str, tmp_path: Path, model: WanModel) -> None:
    path = FORMATS[name](tmp_path, model.state_dict())
    file = path if path.is_file() else sorted(path.glob("*.safetensors"))[1]
    (file.parent / f"another{file.suffix}").touch()
    if path.is_file():
        (file.parent / f"another{file.suffix}{ending}").touch()  # of another file
        transformer.check(path, model.config)
    beside = file.with_name(file.name + ending)
    beside.touch()
    with pytest.raises(ValueError, match=f"{beside.name} says so; let it end, or download it again"):
        transformer.check(path, model.config)
    if path.is_file():
        with pytest.raises(ValueError, match="its download is not finished"):
            transformer.check(path.rename(beside), model.config)


def script(folder: Path, state: State) -> Path:
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), folder / "w.pt")
    return folder / "w.pt"


def numpy_archive(folder: Path, state: State) -> Path:
    np.savez(folder / "w.npz", a=np.ones(3))
    return (folder / "w.npz").rename(folder / "w.pt")


def plain_zip(folder: Path, state: State) -> Path:
    with zipfile.ZipFile(folder / "w.pt", "w") as archive:
        archive.writestr("model/weights.bin", b"x" * 100)
    return folder / "w.pt"


OTHERS: dict[str, tuple[Damage, str]] = {
    "TorchScript": (script, "it is a TorchScript archive, a program: take the weights alone"),
    "NumPy": (numpy_archive, r"it is a NumPy archive \(.npz\): take the weights as safetensors"),
    "zip": (plain_zip, "it is a zip archive of model/weights.bin: unpack it"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_archives_are_called_what_they_are(name: str, tmp_path: Path, model: WanModel) -> None:
    write, words = OTHERS[name]
    with pytest.raises(ValueError, match=words) as refusal:
        transformer.check(write(tmp_path, {}), model.config)
    assert "cut short" not in str(refusal.value)


ODD = {
    "spiece_model": torch.zeros(40, dtype=torch.uint8),
    "position_ids": torch.arange(6)[None],
    "freqs": torch.ones(4, 2, dtype=torch.complex64),
}


def test_bytes_counters_and_complex_numbers_beside_good_weights_are_no_quantized_weights(tmp_path: Path, model: WanModel) -> None:
    for write in (torch.save, save_file):
        path = tmp_path / ("w.pt" if write is torch.save else "w.safetensors")
        write(model.state_dict() | ODD, path)
        loaded = transformer.load_network(path, None, model.config, torch.float32, "cpu").state_dict()
        assert all(torch.equal(loaded[name], value) for name, value in model.state_dict().items())
    small = model.state_dict() | {"blocks.0.ffn.0.weight": torch.ones(model.config.ffn_dim, model.config.dim, dtype=torch.int8)}
    torch.save(small, tmp_path / "int8.pt")
    with pytest.raises(ValueError, match="blocks.0.ffn.0.weight is int8, quantized weights are not read"):
        transformer.check(tmp_path / "int8.pt", model.config)


HEADERS = [
    b'{"a": {"dtype": "F32", "shape": 7, "data_offsets": [0, 4]}}', b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": 3}}',
    b'{"a": {"dtype": 4, "shape": ["x"], "data_offsets": [0, 4]}}', b'{"a": {"shape": [1], "data_offsets": [0, 4]}}', b"[" * 5000,
    b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, "b"]}}', b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": []}}',
    b'{"__metadata__": 3, "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}', b'{"a": null}', b"null", b"\xff\xfe",
    b'{"a": {"dtype": "F32", "shape": [' + b"9" * 5000 + b'], "data_offsets": [0, 4]}}',
]  # fmt: skip


@pytest.mark.parametrize("header", HEADERS)
def test_whatever_a_header_says_is_one_line(header: bytes, tmp_path: Path, model: WanModel) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    for check in (
        transformer.check,
        lambda path, _: check_lora(path, transformer.linear_layers(model.config)),
        lambda path, _: vae.check(path),
    ):
        with pytest.raises(ValueError) as refusal:
            check(path, model.config)
        assert str(refusal.value).startswith(str(path)) and "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "name", ["w.safetensors", "w.pth", "folder/diffusion_pytorch_model.safetensors", "folder/model.bin", "folder/adapter_model.safetensors"]
)
def test_a_pipe_is_not_waited_for(name: str, tmp_path: Path, model: WanModel) -> None:
    """Alone or in a folder; a test that waits dies by its alarm."""
    signal.alarm(30)
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    os.mkfifo(path)
    asked = tmp_path / Path(name).parts[0]
    for check in (
        transformer.check,
        lambda path, _: check_lora(path, {}),
        lambda path, _: vae.check(path),
        lambda path, _: umt5.check(path, path),
    ):
        with pytest.raises(ValueError) as refusal:
            check(asked, model.config)
        assert str(refusal.value).startswith(str(asked)) and "\n" not in str(refusal.value)
    signal.alarm(0)


def test_random_damage_is_one_line_or_a_right_file(tmp_path: Path, model: WanModel) -> None:
    """Bytes turned over, cut away and put in, in files of every format: never another kind of exception."""
    draw = random.Random(5)
    for name in ("bare", "safetensors", "self_forcing", "bare_before_2020", "diffusers_shards"):
        folder = tmp_path / name
        folder.mkdir()
        path = FORMATS[name](folder, model.state_dict())
        files = [path] if path.is_file() else sorted(path.iterdir())
        whole = {file: file.read_bytes() for file in files}
        for _ in range(25):
            file = draw.choice(files)
            content = bytearray(whole[file])
            for _ in range(draw.choice((1, 1, 8))):
                start = draw.randrange(min(len(content), draw.choice((64, 4000, len(content)))))
                if draw.random() < 0.5:
                    content[start] = draw.randrange(256)
                else:
                    content[start : start + draw.randrange(400)] = draw.randbytes(draw.randrange(400))
            file.write_bytes(content)
            try:
                transformer.check(path, model.config, whole=True)
            except ValueError as error:
                assert "\n" not in str(error) and str(folder) in str(error)
            file.write_bytes(whole[file])


@pytest.fixture(scope="module")
def codec():
    torch.manual_seed(3)
    return need("diffusers").AutoencoderKLWan(base_dim=4).eval().requires_grad_(False)


def bin_folder(codec, folder: Path) -> Path:
    codec.save_pretrained(folder, safe_serialization=False)
    return folder


def sharded(codec, folder: Path) -> Path:
    codec.save_pretrained(folder, max_shard_size="200KB")
    assert len(list(folder.glob("*-of-*.safetensors"))) > 1
    return folder


def two_variants(codec, folder: Path) -> Path:
    codec.save_pretrained(folder)
    shutil.copy(folder / "diffusion_pytorch_model.safetensors", folder / "diffusion_pytorch_model.fp16.safetensors")
    return folder


def in_a_checkpoint(prefix: str) -> Callable[..., Path]:
    def write(codec, folder: Path) -> Path:
        folder.mkdir()
        state = {prefix + name: value for name, value in codec.state_dict().items()}
        save_file(
            state | {"model.diffusion_model.head.head.bias": torch.ones(64)} if "stage" in prefix else state, folder / "w.safetensors"
        )
        return folder / "w.safetensors"

    return write


FOLDERS = {
    "bin": bin_folder, "shards": sharded, "variants": two_variants, "model.": in_a_checkpoint("model."), "vae.": in_a_checkpoint("vae."),
    "first_stage_model.": in_a_checkpoint("first_stage_model."),
}  # fmt: skip


@pytest.mark.parametrize("name", FOLDERS)
def test_a_codec_is_read_as_a_codec_however_it_lies(name: str, codec, tmp_path: Path) -> None:
    path = FOLDERS[name](codec, tmp_path / "vae")
    vae.check(path, whole=True)
    loaded = vae.WanCodec.load(path, dtype=torch.float32)
    assert all(torch.equal(value, codec.decoder.state_dict()[key]) for key, value in loaded.decoder.state_dict().items())
    if name == "variants":
        (path / "diffusion_pytorch_model.safetensors").unlink()
        vae.check(path)


def test_a_wrong_folder_is_told_what_belongs_there(codec, tmp_path: Path, model: WanModel) -> None:
    network = diffusers_folder(1)(tmp_path, model.state_dict())
    for check, says in ((vae.check, "AutoencoderKLWan"), (umt5._fitting, "UMT5EncoderModel")):
        with pytest.raises(ValueError, match=f"config.json says WanTransformer3DModel; a folder of {says} belongs there"):
            check(network)
    codec.save_pretrained(tmp_path / "vae")
    (tmp_path / "vae" / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"vae/config.json: cannot be read \(JSONDecodeError"):
        vae.check(tmp_path / "vae")
    config = {"latents_mean": ["a"] * 16}
    (tmp_path / "vae" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ValueError, match="latents_mean and latents_std of 16 numbers"):
        vae.check(tmp_path / "vae")
    (tmp_path / "vae" / "config.json").write_text('{"latents_std": [0' + ", 1" * 15 + "]}", encoding="utf-8")
    with pytest.raises(ValueError, match="deviations above 0"):
        vae.check(tmp_path / "vae")

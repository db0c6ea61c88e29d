"""Each of VBench's eight dimensions, our path from the file to the score against `VBench.evaluate`, same weights, same videos."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from echo.files import ROOT
from eval.vbench import package
from eval.vbench.networks import images, interface, packages
from tests.helpers.command import carried_out
from tests.vbench.compared import our_radii, ours, theirs

INSTALLED = not packages.missing(packages.PACKAGE)
needs_package = pytest.mark.skipif(not INSTALLED, reason="the vbench package is not installed; tests/vbench/run makes a place for it")
TOLERANCE = 1e-5


@pytest.fixture(scope="session")
def both(files, tmp_path_factory):
    from tests.helpers import vbench_files as made

    paths = made.videos(tmp_path_factory.mktemp("videos"))
    with ThreadPoolExecutor() as pool:  # the package has a process of its own
        answers = pool.submit(theirs, files, paths, made.PROMPTS, tmp_path_factory.mktemp("package"), "tiny")
        mine = ours(files, paths, made.PROMPTS, tmp_path_factory.mktemp("records"))
        return mine, answers.result(), paths


@needs_package
@pytest.mark.parametrize("dimension", package.DIMENSIONS)
def test_a_dimension_is_the_packages(both, dimension, record_property):
    mine, answers, paths = both
    found = package.differences(mine, answers.scores, paths)[dimension]
    told = f"{package.lines({dimension: found})[0]}: ours {mine[dimension]}, theirs {answers.scores[dimension]}"
    record_property("difference", told)
    assert len(paths) == len(mine[dimension]) == len(answers.scores[dimension]) == 3
    assert found.largest <= (0 if dimension == "dynamic_degree" else TOLERANCE), told
    assert len({round(score, 4) for score in answers.scores[dimension]}) > 1, (
        f"these videos cannot tell a right score from a constant: {told}"
    )


@needs_package
def test_the_radii_behind_yes_and_no_are_the_packages(both, files):
    """A yes or no hides much: the numbers that it is made of are compared themselves."""
    _, answers, paths = both
    mine = our_radii(files["raft"], paths[:2])
    apart = np.concatenate([np.abs(np.subtract(*rows)) for rows in zip(mine, answers.radii_px, strict=False)])
    largest, mean = apart.max(), apart.mean()
    assert largest <= 1e-4, f"largest {largest:.1e} px, mean {mean:.1e} px of radii about {np.mean(answers.radii_px[0]):.1f} px"


def other_positions(self, embeddings, height, width):
    """As most libraries stretch them: to the number of patches."""
    table, rows, columns = self.network.embeddings.position_embeddings, height // 16, width // 16
    grid = table[:, 1:].reshape(1, 14, 14, -1).permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(grid, size=(rows, columns), mode="bicubic", align_corners=False)
    return torch.cat((table[:, :1], resized.flatten(2).transpose(1, 2)), 1)


SLIPS = {
    "subject_consistency": ("eval.vbench.networks.dino.Dino._positions", other_positions),
    "background_consistency": ("eval.vbench.networks.images.for_clip", "for_clip_in_bytes"),
    "motion_smoothness": ("torch.Tensor.trunc", "round"),
    "imaging_quality": ("eval.vbench.networks.images.QUALITY_SIDE_PX", 2000),
    "overall_consistency": ("eval.vbench.networks.images.for_clip_in_bytes", "for_clip"),
}
"""Dimension -> a small slip in its rule, of the kind that looks right: what is put in place of what."""


@needs_package
@pytest.mark.parametrize("dimension", SLIPS)
def test_a_small_slip_is_seen(dimension, both, files, tmp_path, monkeypatch):
    from tests.helpers import vbench_files as made

    (place, slip), (_, answers, paths) = SLIPS[dimension], both
    module = torch.Tensor if place.startswith("torch") else images
    monkeypatch.setattr(place, getattr(module, slip) if isinstance(slip, str) else slip)
    last = 2  # the longest of the three, and the only one that is wider than 512 px
    wrong = ours(files, paths[last:], made.PROMPTS[last:], tmp_path, (dimension,))[dimension][0]
    apart = abs(wrong - answers.scores[dimension][last])
    assert apart > TOLERANCE, f"{dimension} with {place} changed is {apart:.1e} from the package: the tolerance cannot tell"


@needs_package
def test_one_update_less_of_raft_is_seen(both, files, monkeypatch):
    _, answers, paths = both
    monkeypatch.setattr("eval.vbench.networks.raft.UPDATES", 19)
    assert np.abs(np.subtract(our_radii(files["raft"], paths[:1])[0], answers.radii_px[0])).max() > 1e-3


@needs_package
def test_a_folder_is_scored_by_both_with_one_command(files, tmp_path):
    from tests.helpers import vbench_files as made
    from tests.vbench.compared import HERE

    videos, weights = made.videos(tmp_path / "videos"), tmp_path / "weights"
    (weights / "dino").mkdir(parents=True)
    (weights / "dino" / "hubconf.py").write_bytes((HERE / "dino_code" / "hubconf.py").read_bytes())
    for name in ("dino", "clip_b32", "clip_l14", "aesthetic"):
        (weights / interface.NETWORKS[name].files[0]).symlink_to(files[name])
    dimensions = ["temporal_flickering", "subject_consistency", "background_consistency", "aesthetic_quality"]
    words = [f"dimensions={','.join(dimensions)}", "clip_features=dino_clip", f"weights={weights}", "--records", str(tmp_path / "records")]
    words = [str(tmp_path / "videos"), *words, "backend=vbench_package", "device=cpu", "--output", str(tmp_path / "out")]
    said = carried_out("score", "eval.vbench.folder:score", words)
    assert [line.split()[0] for line in said[:-1]] == dimensions and said[-1].startswith(f"{len(videos)} videos"), said
    assert all(float(line.split()[2]) <= TOLERANCE for line in said[:-1]), said
    answers = {path: path.stat().st_mtime_ns for path in (tmp_path / "vbench_package").glob("*/*.json") if path.stem in dimensions}
    next(path for path in answers if path.stem == dimensions[0]).unlink()
    assert carried_out("score", "eval.vbench.folder:score", words) == said
    again = {path.stem: path.stat().st_mtime_ns == answers[path] for path in answers}
    assert again == {name: name != dimensions[0] for name in dimensions}, f"answers that were there: {again}"


def test_the_committed_run_with_true_sizes_was_equal():
    """What is too slow for this suite: `tests/vbench/run true` wrote it."""
    run = json.loads((ROOT / "docs" / "data" / "vbench_equality.json").read_text(encoding="utf-8"))
    assert set(run["dimensions"]) == set(package.DIMENSIONS) and len(run["videos"]) >= 3
    for name, row in run["dimensions"].items():
        apart = np.abs(np.subtract(row["ours"], row["theirs"]))
        assert apart.max() == row["largest"] <= (0 if name == "dynamic_degree" else TOLERANCE), f"{name}: {apart}"

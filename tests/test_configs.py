"""Every YAML of `conf/` composes, passes the check, and names things that exist."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from echo.files import ROOT
from eval.protocol import TASKS
from jobs.launch import sweep as command
from jobs.spec import identity
from jobs.spec.config import from_plain
from jobs.spec.plan import prepare
from tests.helpers.toy import write_backbone, write_prompts

CONF = ROOT / "conf"
FILES = sorted(path for path in CONF.rglob("*.yaml"))
GROUPS = ("backbone", "method", "task", "eval")


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """Overrides that stand in for files which are no part of the configuration."""
    folder = tmp_path_factory.mktemp("toy")
    return [
        f"backbone.weights={write_backbone(folder / 'model.safetensors', grid=4)}",
        "++backbone.lora=null",
        f"task.prompt_set={write_prompts(folder / 'prompts.jsonl', 8)}",
    ]


def composed(words: list[str]) -> dict:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return OmegaConf.to_container(compose("config", words), resolve=True)


@pytest.mark.parametrize("path", [p for p in FILES if p.parent.name in GROUPS], ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_choice_composes_and_passes_the_check(path, toy):
    plain = composed([f"{path.parent.name}={path.stem}"])
    config = from_plain(plain)
    assert getattr(config, path.parent.name).name == path.stem, "a file's name is the value that people type"
    for _, enters, _ in identity.leaves(config):
        assert enters in identity.ENTERS
    if path.parent.name == "method":
        prepare(composed([f"method={path.stem}", "eval=none", *toy]))


@pytest.mark.parametrize("name", ["longlive", "longlive_flush", "longlive_echo", "longlive_echo_recall_none"])
def test_a_method_may_name_its_backbone(name):
    """Rows of one sweep then run on different weights; who names another backbone gets that."""
    assert composed([f"method={name}"])["backbone"]["name"] == "tiny_long"
    assert composed([f"method={name}", "backbone=tiny"])["backbone"]["name"] == composed([])["backbone"]["name"] == "tiny"


def test_every_task_has_a_protocol_and_the_other_way_round():
    assert {path.stem for path in (CONF / "task").glob("*.yaml")} == set(TASKS)


@pytest.mark.parametrize("path", sorted((CONF / "debug").glob("*.yaml")), ids=lambda p: p.stem)
def test_debug_presets(path, toy):
    job = prepare(composed([f"debug={path.stem}", "eval=none", *toy]))
    assert len(job.asked) == 1 and Path(job.config.store).parts[0] == "results"


def sweep(path: Path) -> Iterator[list[str]]:
    """The command lines that an experiment stands for, of one seed."""
    params = OmegaConf.to_container(OmegaConf.load(path).hydra.sweeper.params)
    params["seed"] = 0
    for values in itertools.product(*(str(value).split(",") for value in params.values())):
        yield [f"{key}={value}" for key, value in zip(params, values)]


@pytest.mark.parametrize("path", sorted((CONF / "experiment").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_run_of_every_experiment_passes_the_check(path, toy):
    seen = set()
    for words in sweep(path):
        job = prepare(composed([f"experiment={path.stem}", *words, "eval=none", "prompts=8", *toy]))
        seen.add((job.config.task.name, job.run_id))
    assert len(seen) == len(list(sweep(path))) > 1


@pytest.mark.parametrize("name", [None, "table3"])
def test_name_of_an_experiment_reaches_its_tables(name):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", [] if name is None else [f"experiment={name}"], return_hydra_config=True)
    assert command._experiment(config) == name


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(CONF)))
def test_no_absolute_path_and_a_comment_that_says_what_it_is(path):
    text = path.read_text(encoding="utf-8")
    assert text.startswith("#")
    text = text.replace("override /", "override ")  # of Hydra's groups
    assert not [word for word in text.replace("'", " ").replace('"', " ").split() if word.startswith(("/", "~")) and len(word) > 1]

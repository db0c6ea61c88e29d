"""Every YAML of `conf/` composes, passes the check, and names things that exist."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from baselines.presets import ablations, choices, preset
from echo.files import ROOT
from eval.protocol import TASKS
from jobs.launch import sweep as command
from jobs.spec import identity
from jobs.spec.compose import product
from jobs.spec.config import anchored, from_plain
from jobs.spec.plan import prepare
from tests.helpers.experiments import params
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


def composed_apart() -> Iterator[tuple[str, str]]:
    """Every choice. Of ablations, which are one mechanism, all changes of one base, and one change of every other."""
    one = f"_{next(iter(OmegaConf.load(CONF / 'ablations.yaml').changes))}"
    for group in GROUPS:
        for name in choices(group):
            if name not in ablations() or ablations()[name]["defaults"][0] == "echo" or name.endswith(one):
                yield group, name


@pytest.mark.parametrize(("group", "name"), [*composed_apart()])
def test_every_choice_composes_and_passes_the_check(group, name):
    plain = composed([f"{group}={name}"])
    config = from_plain(plain)
    assert getattr(config, group).name == name, "a file's name is the value that people type"
    assert list(identity.leaves(config)), "each declares what it enters"
    if group == "method":
        assert plain["method"] == preset("method", name), "Hydra's way and the way without it"


def test_names_of_runs_are_those_of_older_stores():
    """A preset's run, on its own backbone, seed 0: recorded when its presets were files of their own."""
    recorded = json.loads((ROOT / "tests" / "golden" / "run_ids.json").read_text(encoding="utf-8"))
    bases = {name: composed([f"method={name}", "prompts=1"]) for name in ("echo", "longlive")}
    found = {}
    for name in choices("method"):
        plain = bases["longlive" if name.startswith("longlive") else "echo"]
        found[name] = prepare(plain | {"method": preset("method", name)}).run_id
    assert {name for name in recorded if found.get(name) != recorded[name]} == set()
    assert set(found) == set(recorded), "a new preset adds its name here"


def test_an_ablation_is_its_base_and_its_change():
    """Whatever changes in the base is in the ablation, but for what that changes; its name and its label tell both."""
    content = OmegaConf.to_container(OmegaConf.load(CONF / "ablations.yaml"))
    before_of = {base: preset("method", base) for base in content["bases"]}
    for base, change in itertools.product(content["bases"], content["changes"]):
        before, after = before_of[base], preset("method", f"{base}_{change}")
        own = dict(content["changes"][change])
        assert after["label"] == f"{before['label'].replace('Echo-Forcing', 'Echo')}, {own.pop('label')}"
        kept = set(before) - set(own) - {"name", "label"}
        assert {key: after[key] for key in kept} == {key: before[key] for key in kept} and set(after) == set(before) | set(own)
        for key, value in own.items():
            assert after[key] == ({**before[key], **value} if isinstance(value, dict) else value)


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
    """Command lines that an experiment stands for: each value of each setting, with the first values of the others; one seed."""
    axes = params(path.stem) | {"seed": ["0"]}
    first = [values[0] for values in axes.values()]
    for values in itertools.product(*axes.values()):
        if sum(a != b for a, b in zip(values, first)) <= 1:
            yield [f"{key}={value}" for key, value in zip(axes, values)]


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted((CONF / "experiment").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_run_of_every_experiment_passes_the_check(path, toy):
    """The last of them, whose preset is put in the place of another, is also as Hydra composes it, on the backbone that the table names."""
    seen = set()
    for words in sweep(path):
        words = [f"experiment={path.stem}", *words, "eval=none", "prompts=8", *toy]
        (plain,) = product({}, words)
        job = prepare(plain)
        seen.add((job.config.task.name, job.run_id))
    words += [f"backbone={plain['backbone']['name']}"]
    assert plain == anchored(composed(words), words)
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

"""Policies of other packages: how they are named, what names their runs, and what is refused."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from baselines import registry
from baselines.presets import choices, make_policy, preset
from echo.policy import Echo
from echo.scene import Prompt
from eval.report.memory_strips import policy_of
from jobs.spec import identity
from tests.helpers.packages import write_metadata, write_package


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The package's folder, importable and with an entry point; what was imported of it is forgotten afterwards."""
    write_metadata(write_package(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for module in [name for name in sys.modules if name.partition(".")[0] == "both_ends"]:
        del sys.modules[module]


def test_a_policy_is_found_by_its_entry_point_and_by_its_class(package: Path) -> None:
    kind = registry.find("ends")
    assert kind is registry.find("both_ends.policy:Ends") and kind.__name__ == "Ends" and registry.names()[-1] == "ends"
    assert preset("method", "ends")["sink_frames"] == 6 and "ends" in choices("method")
    assert preset("method", "both_ends.policy:Ends") == {"name": "Ends", "policy": "both_ends.policy:Ends"}
    bare = make_policy({"method": "both_ends.policy:Ends", "method.sink_frames": "9"})
    assert bare == kind(sink_frames=9) and make_policy({"method": "ends"}) == kind(label="Both ends")


def test_without_a_preset_the_policy_is_its_own(package: Path) -> None:
    (package / "both_ends" / "conf" / "method" / "ends.yaml").unlink()
    assert preset("method", "ends") == {"name": "ends", "policy": "ends"} and "ends" in choices("method")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("end", "unknown policy 'end'; nearest is 'ends' of echo, .*, ends, or method.policy=package.module:Class"),
        ("both_ends.policy:End", "both_ends.policy has no such policy; nearest is Ends of Ends"),
        ("both_ends.policy:Policy", "both_ends.policy has no such policy; nearest is Ends"),
        ("both_ends:Ends", "both_ends has no such policy; it has none at all"),
        ("both_end:Ends", "both_end cannot be imported .ModuleNotFoundError: No module named 'both_end'.; install its package"),
    ],
)
def test_what_is_not_there_is_one_clear_line(package: Path, name: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as refusal:
        registry.make(name, {})
    assert "\n" not in str(refusal.value)


def test_code_that_fails_is_one_clear_line(package: Path) -> None:
    (package / "both_ends" / "policy.py").write_text("raise RuntimeError('first\\nsecond')", encoding="utf-8")
    with pytest.raises(ValueError, match="both_ends.policy cannot be imported .RuntimeError: first.; install") as refusal:
        registry.find("ends")
    assert "\n" not in str(refusal.value)


def test_a_preset_that_says_nothing_and_metadata_that_cannot_be_read_are_one_line_or_nothing(package: Path) -> None:
    path = package / "both_ends" / "conf" / "method" / "ends.yaml"
    nothing = {"null": "policy=None; it names the policy", "name: ends\npolicy: [1]": "policy=.1.; it names", "[1]": "a list"}
    for content, words in nothing.items():
        path.write_text(content, encoding="utf-8")
        with pytest.raises(ValueError, match=f"^{path}: {words}") as refusal:
            preset("method", "ends")
        assert "\n" not in str(refusal.value)
    for entry in ("ends = [[", "ends", "\0"):
        write_metadata(package, entry=entry)
        assert "ends" not in registry.names() and "echo" in registry.names()
    (entries,) = package.glob("*.dist-info/entry_points.txt")
    entries.unlink()
    os.mkfifo(entries)  # which would be waited for without end
    assert "ends" not in registry.names()
    record = entries.with_name("RECORD")
    record.unlink()
    os.mkfifo(record)
    source = registry.source_of(registry.make("both_ends.policy:Ends", {}))
    assert source is not None and source["package"] is None and source["file"]


def test_no_package_takes_a_shipped_name(package: Path) -> None:
    write_metadata(package, entry="echo = both_ends.policy:Ends")
    assert registry.find("echo") is Echo and registry.packaged() == {}


def test_version_and_content_name_the_source(package: Path) -> None:
    first = registry.source_of(registry.make("ends", {}))
    assert first is not None and (first["package"], first["version"]) == ("both-ends", "1.2")
    write_metadata(package, version="1.3")
    second = registry.source_of(registry.make("ends", {}))
    assert second == first | {"version": "1.3"}
    policy = package / "both_ends" / "policy.py"
    policy.write_text(policy.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    third = registry.source_of(registry.make("both_ends.policy:Ends", {}))
    assert third is not None and third["file"] != first["file"]
    assert all(registry.source_of(registry.make(name, {})) is None for name in registry.shipped())


def test_a_store_has_nothing_imported(package: Path) -> None:
    """A run.json is anybody's file: it names policies with an entry point, and no modules."""
    assert policy_of({"method.policy": "both_ends.policy:Ends", "method.settings": {}}) is None
    assert not any(name.startswith("both_ends") for name in sys.modules)
    assert policy_of({"method.policy": "ends", "method.settings": {"sink_frames": 3}}) == registry.make("ends", {"sink_frames": 3})


def test_the_source_enters_the_runs_name(package: Path) -> None:
    from jobs.spec.compose import one
    from jobs.spec.plan import prepare

    words = ["task=recall", "prompts=1", "store=unused"]
    job = prepare(one(["method=ends", *words]))
    assert job.run_key["pixels"]["method.source"] == registry.source_of(job.policy)
    shipped = prepare(one(["method=echo", *words]))
    assert "method.source" not in shipped.run_key["pixels"]
    before = job.run_id
    write_metadata(package, version="1.3")
    assert prepare(one(["method=ends", *words])).run_id != before
    assert prepare(one(["method=echo", *words])).run_id == shipped.run_id
    assert identity.unit_key(before, Prompt("p", ("a red ball",), (6.0,), ("",)), None)["run"] == before

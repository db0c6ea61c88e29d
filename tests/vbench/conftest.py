"""Equality with the vbench package; runs where all packages of `eval.vbench.packages` are, in `tests/vbench/run`'s environment."""

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

from eval.vbench import packages



@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """The package looks for word pieces when it is imported, and would fetch them."""
    if packages.missing(packages.PACKAGE):
        return
    packages.prepare()
    cache = tmp_path_factory.mktemp("cache")
    (cache / "ViCLIP").mkdir()
    name = "bpe_simple_vocab_16e6.txt.gz"
    shutil.copy(Path(find_spec("clip").submodule_search_locations[0]) / name, cache / "ViCLIP" / name)
    os.environ["VBENCH_CACHE_DIR"] = str(cache)


@pytest.fixture(scope="session")
def files(tmp_path_factory, own_cache):
    from tests.vbench import made

    return made.write(tmp_path_factory.mktemp("weights"), "tiny")

"""Equality with the vbench package; runs where all packages of `eval.vbench.networks.packages` are, in `tests/vbench/run`'s environment."""

import pytest

from eval.vbench.networks import packages
from tests.vbench.compared import word_pieces


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """Random weights in published files, by network."""
    assert not packages.missing(packages.PACKAGE), packages.missing(packages.PACKAGE)
    word_pieces(tmp_path_factory.mktemp("cache") / "pieces")
    from tests.helpers import vbench_files as made

    return made.write(tmp_path_factory.mktemp("weights"), "tiny")

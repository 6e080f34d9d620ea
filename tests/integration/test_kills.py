"""A real run, killed at random instants and resumed, ends byte for byte as one that was left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlopt.cli.testing.runs import KINDS, results, small_run
from mlopt.core.testing.kills import check_kills


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize(
    "kind", [pytest.param(one, marks=[] if one == "search" else [pytest.mark.slow]) for one in KINDS]
)
def test_twenty_random_kills(kind: str, tmp_path: Path) -> None:
    told = check_kills(small_run(kind, tmp_path), results(kind), tmp_path, kills=20)
    assert told["killed"] == 20
    assert told["different"] == 0
    assert len(results(kind)(tmp_path / "whole")) > 1000

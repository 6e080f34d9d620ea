"""A real search, killed at random instants and resumed, ends byte for byte as one that was left alone."""

from __future__ import annotations

import pytest

from mlopt.cli.testing import results, small_search
from mlopt.core.testing.kills import check_kills


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_twenty_random_kills(tmp_path):
    told = check_kills(small_search(tmp_path), results, tmp_path, kills=20)
    assert told["killed"] == 20
    assert told["different"] == 0
    assert len(results(tmp_path / "whole")) > 1000

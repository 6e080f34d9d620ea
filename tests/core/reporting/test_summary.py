"""What a run says of itself: numbers, how it ended, and what survives being written to files."""

from __future__ import annotations

import json

import pytest

from mlopt.core.errors import PluginError
from mlopt.core.reporting.statistics import Estimate
from mlopt.core.reporting.summary import Card, Column, Figure, Gallery, Structure, Summary, Table


def everything() -> Summary:
    table = Table("t", [Column("a", "eV", 2)], [[1.0], [None], [Estimate(1.0, 0.5, 2.0)]], "c")
    return Summary(
        {"n": 1, "energy": -2.5},
        headline="came down",
        reached=False,
        missed="m",
        cards=[Card("c", True, "eV", "note")],
        tables=[table],
        figures=[Figure("f", "f.svg", "c"), Gallery("g", [Structure("s.xyz", -1, "end")], "c")],
        remarks=["r"],
    )


def test_it_is_read_as_it_was_written() -> None:
    told = everything()
    numbers, page = (json.loads(json.dumps(one)) for one in (told, told.page()))
    again = Summary.with_page(numbers, page)
    assert again == told and again.page() == told.page()
    assert (again.headline, again.failure, again.reached, again.missed) == ("came down", "", False, "m")


def test_a_plain_dictionary_is_numbers_alone() -> None:
    told = Summary.of({"converged": False, "hits": 0, "target_energy": -1.0})
    assert told.reached is None and told.failure == "" and told["status"] == "finished"
    assert not told.cards and not told.tables and not told.figures
    summary = everything()
    assert Summary.of(summary) is summary


def test_how_a_run_ended_is_said_once() -> None:
    told = Summary({"status": "splendid", "energy": 1.0}, failure="every start did")
    assert dict(told) == {"status": "failed", "energy": 1.0, "failure": "every start did"}
    assert Summary.of({"status": "failed"}).failure == "the run failed"
    late = everything().failed("energy is nan")
    assert late["status"] == "failed" and late.failure == "energy is nan"
    assert late.page() == everything().page() and late.headline == "came down"


def test_the_kind_of_run_comes_first() -> None:
    told = everything().of_kind("relax")
    assert list(told) == ["experiment", "status", "n", "energy", "headline"]
    assert told["experiment"] == "relax" and told.page() == everything().page()


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(
        PluginError, match=r"table 't' of a summary: row 1 has 1 cells, and there are 2 columns"
    ):
        Table("t", [Column("a"), Column("b")], [[1, 2], [3]])


@pytest.mark.parametrize(
    "change",
    [{"cards": 3}, {"reached": "yes"}, {"missed": None}, {"tables": [{"title": "t"}]}, {"remarks": [1]}],
)
def test_a_page_of_other_data_is_no_page(change: dict[str, object]) -> None:
    with pytest.raises((TypeError, KeyError)):
        Summary.with_page({}, everything().page() | change)

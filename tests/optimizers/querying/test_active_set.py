"""The active set: in blocks as in one piece, saved and restored bit for bit, and sets of too few rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from mlopt.core import InputError
from mlopt.optimizers.querying import ActiveSet
from mlopt.optimizers.querying import active_set as module


def rows_of(k: int, m: int, rank: int | None = None, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    rows = generator.normal(size=(k, rank or m))
    if rank is not None:
        rows = rows @ generator.normal(size=(rank, m))
    return rows * np.logspace(0.0, -4.0, m)


def settled(found: ActiveSet, rows: np.ndarray) -> None:
    """All rows are combinations of the active ones, by coefficients that are at most 1.001."""
    c, outside = found.coefficients(rows)
    assert not outside.any() and np.abs(c).max() <= 1.001 + 1e-9
    assert np.abs(c @ found.rows - rows).max() < 1e-9


def test_in_blocks_as_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of(1200, 30)
    whole = ActiveSet.of(rows)
    settled(whole, rows)
    monkeypatch.setattr(module, "BLOCK", 100)
    parts = ActiveSet.of(rows)
    settled(parts, rows)
    assert whole.initialised and parts.initialised and abs(whole.log_det - parts.log_det) < 0.1 * 30
    calls = []

    def blocks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        calls.append(1)
        for first in range(0, 1200, 170):
            stop = min(first + 170, 1200)
            yield rows[first:stop], np.arange(first, stop)

    streamed = ActiveSet.of_blocks(blocks)
    settled(streamed, rows)
    assert len(calls) > 1 and abs(whole.log_det - streamed.log_det) < 0.1 * 30
    np.testing.assert_array_equal(streamed.rows, rows[streamed.owners])


def test_the_volume_never_decreases_and_owners_come_and_go() -> None:
    rows = rows_of(600, 12)
    owners = np.arange(600) // 3
    found = ActiveSet.of(rows[:60], owners[:60])
    for first in range(60, 600, 60):
        before = found
        part = slice(first, first + 60)
        found, entered, left = before.extended(rows[part], owners[part])
        assert found.log_det >= before.log_det - 1e-9
        assert set(found.counts) == (set(before.counts) | set(entered)) - set(left)
        assert not set(entered) & set(before.counts) and set(left) <= set(before.counts)
        assert bool(entered) == (found.log_det > before.log_det + 1e-9)
    assert sum(found.counts.values()) == 12
    again, entered, left = found.extended(rows[:60], owners[:60])
    assert again.log_det >= found.log_det - 1e-9
    same, entered, left = again.extended(again.rows, again.owners)
    assert not entered and not left and same is again


def test_too_few_rows_are_a_state() -> None:
    found = ActiveSet.of(rows_of(5, 9))
    assert (found.rank, found.initialised) == (5, False)
    settled(found, rows_of(5, 9))
    _, outside = found.coefficients(rows_of(4, 9, seed=1))
    assert outside.all()
    found, entered, left = found.extended(rows_of(4, 9, seed=1))
    assert found.initialised and entered == [5, 6, 7, 8] and not left
    nothing = ActiveSet.of(np.zeros((0, 9)))
    assert (nothing.rank, nothing.initialised, nothing.counts) == (0, False, {})
    full, entered, _ = nothing.extended(rows_of(40, 9))
    assert full.initialised and len(entered) == 9
    assert nothing.extended(np.zeros((0, 9)))[0].rank == 0


def test_columns_that_depend_on_others_are_left_out() -> None:
    rows = rows_of(300, 12, rank=8)
    found = ActiveSet.of(rows[:150])
    assert (found.rank, found.initialised) == (8, False)
    settled(found, rows[:150])
    more, _, _ = found.extended(rows[150:])
    assert more.rank == 8
    another = rows_of(1, 12, seed=3) * 1e-3
    more, entered, _ = found.extended(another)
    assert more.rank == 9 and entered == [max(found.counts) + 1]
    settled(more, np.concatenate([found.rows, another]))


def test_a_column_that_was_zero_has_no_size_before_it_is_met() -> None:
    rows = rows_of(50, 6)
    rows[:30, 5] = 0.0
    rows[:, 5] *= 1e-3
    found = ActiveSet.of(rows[:30])
    assert found.rank == 5
    found, _, _ = found.extended(rows[30:])
    assert found.initialised
    settled(found, rows)


def test_a_column_that_was_next_to_zero_takes_its_size_from_later_rows() -> None:
    """As where the first structures have atoms at the very end of the reach: ranks are judged by the largest column."""
    rows = rows_of(40, 8)
    rows[:3, 7] *= 1e-9
    rows[3:, 2:7] *= 1e-4
    found = ActiveSet.of(rows[:3])
    for one in range(3, 40):
        found, _, _ = found.extended(rows[one : one + 1])
        settled(found, rows[one : one + 1])
        assert not found.coefficients(rows[: one + 1])[1].any()
    assert found.initialised


def test_saved_and_restored_bit_for_bit() -> None:
    for rows in (rows_of(100, 12), rows_of(100, 12, rank=7), rows_of(3, 12), np.zeros((0, 12))):
        found = ActiveSet.of(rows)
        again = ActiveSet.of_tensors(found.to_tensors())
        assert again.log_det == found.log_det
        for name, tensor in found.to_tensors().items():
            other = again.to_tensors()[name]
            assert tensor.dtype == other.dtype and bool((tensor == other).all()), name
        more = rows_of(200, 12, seed=5)
        one, other = found.extended(more)[0], again.extended(more)[0]
        assert one.rows.tobytes() == other.rows.tobytes() and one.log_det == other.log_det


def test_the_order_of_rows_and_repeats_do_not_matter() -> None:
    rows = rows_of(400, 15)
    found = ActiveSet.of(rows)
    order = np.random.default_rng(1).permutation(400)
    assert set(ActiveSet.of(rows[order], order).counts) == set(found.counts)
    twice = ActiveSet.of(np.concatenate([rows, rows]), np.tile(np.arange(400), 2))
    assert set(twice.counts) == set(found.counts)


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(InputError, match="3 rows have 2 owners; give one for each row"):
        ActiveSet.of(rows_of(3, 2), np.arange(2))
    with pytest.raises(InputError, match="its rows have 4 columns, and those to add 5"):
        ActiveSet.of(rows_of(9, 4)).extended(rows_of(9, 5))
    with pytest.raises(InputError, match="there are no blocks of rows"):
        ActiveSet.of_blocks(lambda: iter(()))
    with pytest.raises(InputError, match="row 1 is not finite"):
        ActiveSet.of(np.array([[1.0, 2.0], [np.inf, 0.0]]))

"""MaxVol: a local optimum of the volume, whatever the start, checked from scratch."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from mlopt.core import InputError
from mlopt.optimizers.querying.active_set import ActiveSet
from mlopt.optimizers.querying.maxvol import MaxVol, RankError, maxvol


def matrix(k: int, m: int, seed: int = 0, steep: float = 6.0) -> np.ndarray:
    """Rows with columns of very different sizes, and some rows much larger than others."""
    generator = np.random.default_rng(seed)
    size = np.exp(generator.normal(size=(k, 1)))
    return size * generator.normal(size=(k, m)) * np.logspace(0.0, -steep, m)


def check(rows: np.ndarray, found: MaxVol, tolerance: float) -> None:
    chosen = rows[found.indices]
    assert len(set(found.indices.tolist())) == rows.shape[1]
    c = np.linalg.solve(chosen.T, rows.T).T
    assert np.abs(c).max() <= 1.0 + tolerance + 1e-9
    np.testing.assert_allclose(found.coefficients, c, atol=1e-8)
    assert found.log_det == pytest.approx(np.linalg.slogdet(chosen)[1], abs=1e-8)


@pytest.mark.parametrize("start", ["lu", "leverage"])
@pytest.mark.parametrize(("k", "m"), [(1, 1), (7, 7), (40, 6), (90, 30), (700, 60), (3000, 130)])
def test_no_coefficient_is_above_the_limit(k: int, m: int, start: str) -> None:
    for tolerance in (1e-3, 0.5):
        rows = matrix(k, m)
        before = rows.copy()
        check(rows, maxvol(rows, tolerance, start), tolerance)
        np.testing.assert_array_equal(rows, before)


def test_both_starts_end_at_much_the_same_volume() -> None:
    for seed in range(3):
        rows = matrix(800, 50, seed)
        found = [maxvol(rows, start=start).log_det for start in ("lu", "leverage")]
        assert abs(found[0] - found[1]) < 0.1 * 50


def test_no_exchange_of_a_row_raises_the_volume() -> None:
    rows = matrix(25, 4)
    found = maxvol(rows, 1e-9)
    for place, row in itertools.product(range(4), range(25)):
        other = rows[found.indices].copy()
        other[place] = rows[row]
        assert np.linalg.slogdet(other)[1] <= found.log_det + 1e-8


def test_of_few_rows_the_volume_is_near_the_largest() -> None:
    """The optimum is local: within a factor of 2 of the best of all 495 choices."""
    for seed in range(5):
        rows = matrix(12, 4, seed, 1.0)
        best = max(np.linalg.slogdet(rows[list(some)])[1] for some in itertools.combinations(range(12), 4))
        assert best - np.log(2.0) < maxvol(rows).log_det <= best + 1e-9


def test_repeated_rows_are_taken_once() -> None:
    rows = np.repeat(matrix(60, 10), 5, 0)
    found = maxvol(rows)
    check(rows, found, 1e-3)
    assert len({index // 5 for index in found.indices.tolist()}) == 10


def test_units_of_columns_do_not_matter() -> None:
    rows, unit = matrix(300, 20), np.logspace(-8.0, 8.0, 20)
    for start in ("lu", "leverage"):
        one, other = maxvol(rows, start=start), maxvol(rows * unit, start=start)
        assert sorted(one.indices.tolist()) == sorted(other.indices.tolist())
        assert other.log_det == pytest.approx(one.log_det + np.log(unit).sum(), abs=1e-7)


def test_what_has_no_volume_is_refused() -> None:
    with pytest.raises(RankError, match="maxvol: 3 rows cannot span 5 columns"):
        maxvol(matrix(3, 5))
    rows = matrix(50, 6, steep=1.0)
    rows[:, 4] = rows[:, 1] - 2.0 * rows[:, 2]
    with pytest.raises(RankError, match="the rows have rank 5, and 6 columns; leave out the columns"):
        maxvol(rows)
    rows[:, 4] = 0.0
    with pytest.raises(RankError, match="rank 5, and 6 columns"):
        maxvol(rows)
    rows[7, 2] = np.nan
    with pytest.raises(InputError, match="row 7 is not finite"):
        maxvol(rows)
    with pytest.raises(InputError, match="`tolerance` must be above 0, got 0"):
        maxvol(matrix(9, 2), 0.0)
    with pytest.raises(InputError, match=r"must be a matrix \(k, m\), got the shape \(3,\)"):
        maxvol(np.ones(3))


def test_rows_that_are_nearly_dependent() -> None:
    """Exchanges settle where an inverse of the chosen rows has no correct digit, as for bases of several species."""
    for seed in range(12):
        generator = np.random.default_rng(seed)
        turn = np.linalg.qr(generator.normal(size=(60, 60)))[0]
        rows = generator.normal(size=(150, 60)) * np.logspace(0.0, -15.0, 60) @ turn
        found = ActiveSet.of(rows)
        c, outside = found.coefficients(rows)
        assert 30 < found.rank < 60
        assert np.abs(c[~outside]).max() < 1.02

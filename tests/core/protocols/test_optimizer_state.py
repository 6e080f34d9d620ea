"""States cut, mixed and stored by what they declare; settings with one number a problem follow their problems."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from mlopt.core.batch.random import problem_keys
from mlopt.core.batch.segments import Segments
from mlopt.core.driver.driver import Driver, minimize
from mlopt.core.driver.result import Result
from mlopt.core.driver.stop import Stop
from mlopt.core.errors import ConfigError
from mlopt.core.landscapes.landscape import Landscape
from mlopt.core.protocols.optimizer import Optimizer, State, nested, per_problem, per_row
from mlopt.core.testing.surfaces import lennard_jones, quadratic
from mlopt.optimizers.local.adam import Adam
from mlopt.optimizers.local.fire import Fire
from mlopt.optimizers.local.gradient_descent import GradientDescent
from mlopt.optimizers.local.lbfgs import LBFGS
from mlopt.optimizers.searches.basin_hopping import BasinHopping

SIZES = [3, 1, 4, 3, 2]
SEGMENTS = Segments(torch.tensor([0, *SIZES]).cumsum(0))
OF_ROW = SEGMENTS.batch


@dataclass(frozen=True)
class Inner(State):
    velocity: torch.Tensor = per_row()
    count: torch.Tensor = per_problem()


@dataclass(frozen=True)
class Outer(State):
    history: torch.Tensor = per_row(axis=1)
    deep: torch.Tensor = per_row(axis=2)
    mask: torch.Tensor = per_row()
    matrix: torch.Tensor = per_problem()
    inner: Inner = nested()


def numbered(offset: int) -> Outer:
    """Every entry says to which problem it belongs, in thousands."""

    def rows(*shape: int, axis: int) -> torch.Tensor:
        whole = torch.arange(torch.Size(shape).numel(), dtype=torch.float64).reshape(shape) + offset
        place = [1] * len(shape)
        place[axis] = -1
        return whole + 1000 * OF_ROW.reshape(place)

    problems = torch.arange(5)
    return Outer(
        history=rows(2, 13, 3, axis=1),
        deep=rows(2, 3, 13, axis=2),
        mask=(OF_ROW + offset) % 2 == 0,
        matrix=1000.0 * problems[:, None, None] + torch.arange(4.0).reshape(2, 2) + offset,
        inner=Inner(rows(13, 3, axis=0), problems * 1000 + offset),
    )


@dataclass(frozen=True)
class Padded(State):
    square: torch.Tensor = per_problem(padded=True)


def owners(state: Outer) -> dict[str, torch.Tensor]:
    """Which problem each row or entry says it belongs to, and whether it has the offset of 500."""
    return {
        "history": state.history[0, :, 0],
        "deep": state.deep[1, 2],
        "velocity": state.inner.velocity[:, 0],
        "matrix": state.matrix[:, 0, 0],
        "count": state.inner.count,
    }


def equal(a: State, b: State) -> None:
    mine, theirs = a.tensors(), b.tensors()
    assert list(mine) == list(theirs)
    for name, tensor in mine.items():
        assert tensor.dtype == theirs[name].dtype and torch.equal(tensor, theirs[name]), name


def test_where_takes_whole_problems_from_each() -> None:
    mask = torch.tensor([True, False, True, False, False])
    one, other = numbered(0), numbered(500)
    mixed = one.where(mask, other, SEGMENTS)
    for name, values in owners(mixed).items():
        chosen = mask if name in ("matrix", "count") else mask[OF_ROW]
        assert torch.equal(values % 1000 >= 500, ~chosen), name
        problem = torch.arange(5) if name in ("matrix", "count") else OF_ROW
        assert torch.equal(torch.div(values, 1000, rounding_mode="floor").long(), problem), name
    assert mixed.mask.dtype == torch.bool and mixed.inner.count.dtype == torch.int64
    equal(one.where(torch.ones(5, dtype=torch.bool), other, SEGMENTS), one)
    equal(one.where(torch.zeros(5, dtype=torch.bool), other, SEGMENTS), other)
    equal(one, numbered(0))  # nothing was changed in place


def test_select_keeps_problems_in_the_order_asked_for() -> None:
    problems = torch.tensor([4, 0, 2])
    chosen, rows = SEGMENTS.select(problems)
    part = numbered(0).select(problems, rows)
    assert part.history.shape == (2, 9, 3) and part.deep.shape == (2, 3, 9) and part.matrix.shape == (3, 2, 2)
    assert part.inner.velocity.shape == (9, 3)
    for name, values in owners(part).items():
        expected = problems if name in ("matrix", "count") else chosen.rows_of(problems)
        assert torch.equal(torch.div(values, 1000, rounding_mode="floor").long(), expected), name
    nothing = numbered(0).select(problems[:0], rows[:0])
    assert nothing.history.shape == (2, 0, 3) and nothing.matrix.shape == (0, 2, 2)


def test_put_is_the_opposite_of_select() -> None:
    one, other = numbered(0), numbered(500)
    problems = torch.tensor([3, 1])
    _, rows = SEGMENTS.select(problems)
    put = one.put(problems, rows, other.select(problems, rows))
    mask = torch.tensor([True, False, True, False, True])
    equal(put, one.where(mask, other, SEGMENTS))
    equal(put.select(problems, rows), other.select(problems, rows))
    equal(one.put(problems, rows, one.select(problems, rows)), one)
    equal(one, numbered(0))


def test_tensors_there_and_back() -> None:
    one, other = numbered(0), numbered(500)
    flat = one.tensors("state.")
    assert list(flat) == [
        *("state.history", "state.deep", "state.mask", "state.matrix"),
        *("state.inner.velocity", "state.inner.count"),
    ]
    back = other.with_tensors(flat, "state.")
    equal(back, one)
    assert isinstance(back.inner, Inner)
    del flat["state.inner.count"]
    with pytest.raises(KeyError, match=r"state\.inner\.count"):
        other.with_tensors(flat, "state.")


def test_states_of_real_optimizers_nest() -> None:
    landscape, x = lennard_jones([4, 3])
    key = problem_keys(0, torch.arange(2))
    state = BasinHopping(quench=LBFGS(memory=2)).init(landscape, x, key)
    flat = state.tensors()
    assert flat["inner.history"].shape == (4, 7, 3) and flat["inner.sy"].shape == (2, 2, 2)
    part = state.select(torch.tensor([1]), torch.tensor([4, 5, 6]))
    assert part.inner.history.shape == (4, 3, 3) and part.tensors().keys() == flat.keys()


def alone(
    optimizer: Optimizer,
    changes: dict[str, torch.Tensor],
    landscape: Landscape,
    x: torch.Tensor,
    **limits: Any,
) -> list[Result]:
    """One problem after the other, each with its own number as a tensor of one."""
    results = []
    for problem in range(landscape.segments.n_problems):
        index = torch.tensor([problem])
        _, rows = landscape.segments.select(index)
        own = optimizer.replace(**{name: values[index] for name, values in changes.items()})
        results.append(minimize(landscape.select(index), own, x[rows], ids=index, **limits))
    return results


@pytest.mark.parametrize(
    "optimizer,name,values",
    [
        (GradientDescent(), "step_size", [0.02, 0.1, 0.05, 0.15, 0.08]),
        (GradientDescent(step_size=0.1), "max_step", [0.01, 0.5, 0.05, 0.02, 0.1]),
        (Adam(), "step_size", [0.02, 0.1, 0.05, 0.2, 0.08]),
        (Fire(), "dt", [0.01, 0.03, 0.02, 0.035, 0.005]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Optimizer) else None,
)
def test_a_setting_with_one_number_a_problem_follows_its_problem(
    optimizer: Optimizer, name: str, values: list[float]
) -> None:
    landscape, x = quadratic(SIZES)
    changes = {name: torch.tensor(values, dtype=torch.float64)}
    limits: dict[str, Any] = {"fmax": 1e-3, "force_calls": 3000}
    whole = minimize(landscape, optimizer.replace(**changes), x, **limits)
    assert (
        bool(whole.converged.all()) and len(set(whole.calls.tolist())) >= 4
    )  # the batch shrinks step by step
    for problem, one in enumerate(alone(optimizer, changes, landscape, x, **limits)):
        assert int(one.calls) == int(whole.calls[problem])
        assert torch.equal(one.x, whole.point(problem)), problem
        assert torch.equal(one.energy[0], whole.energy[problem])


def test_such_a_setting_survives_a_resume() -> None:
    landscape, x = quadratic(SIZES)
    key = problem_keys(0, torch.arange(5))
    sizes = torch.tensor([0.02, 0.1, 0.05, 0.15, 0.08], dtype=torch.float64)
    driver = Driver(landscape, GradientDescent().replace(step_size=sizes), Stop(3000, fmax=1e-3))
    whole = driver.result(driver.advance(driver.begin(x, key)))
    middle = int(whole.calls.sort().values[2])  # some have ended by then
    asked = iter(range(10**6))
    paused = driver.advance(driver.begin(x, key), lambda: next(asked) == middle)
    assert 0 < paused.active.numel() < 5
    tensors, meta = paused.to_checkpoint()
    fresh = driver.begin(x, key)
    fresh.load_checkpoint({name: tensor.clone() for name, tensor in tensors.items()}, meta)
    resumed = driver.result(driver.advance(fresh))
    assert torch.equal(resumed.x, whole.x) and torch.equal(resumed.calls, whole.calls)


def test_select_cuts_nested_optimizers_and_leaves_the_rest() -> None:
    values = torch.arange(5, dtype=torch.float64) + 1
    problems = torch.tensor([4, 1])
    scalar = GradientDescent().replace(step_size=torch.tensor(0.3))
    assert scalar.select(problems) is scalar and LBFGS().select(problems) == LBFGS()
    outer = BasinHopping(quench=GradientDescent().replace(step_size=values))
    cut = outer.select(problems)
    assert isinstance(cut.quench, GradientDescent)
    assert torch.equal(torch.as_tensor(cut.quench.step_size), torch.tensor([5.0, 2.0], dtype=torch.float64))
    assert isinstance(outer.quench, GradientDescent) and torch.as_tensor(outer.quench.step_size).shape == (5,)
    assert cut.temperature == outer.temperature and cut.moves == outer.moves


@pytest.mark.parametrize(
    "inner,name",
    [(GradientDescent(max_step=0.1), "step_size"), (Fire(), "dt"), (LBFGS(), "scale")],
    ids=["gradient-descent", "fire", "lbfgs"],
)
def test_a_nested_setting_with_one_number_a_problem(inner: Optimizer, name: str) -> None:
    # quenches end at different times, so parts of the batch hop while others descend
    landscape, x = lennard_jones([4, 3, 5])
    sizes = torch.tensor([0.002, 0.004, 0.003], dtype=torch.float64)
    quench = inner.replace(**{name: sizes})
    whole = minimize(landscape, BasinHopping(quench=quench, quench_calls=60), x, force_calls=400)
    for problem in range(3):
        index = torch.tensor([problem])
        _, rows = landscape.segments.select(index)
        own = BasinHopping(quench=inner.replace(**{name: sizes[index]}), quench_calls=60)
        one = minimize(landscape.select(index), own, x[rows], force_calls=400, ids=index)
        assert int(one.quenches) > 2
        assert torch.equal(one.energy[0], whole.energy[problem])
        assert torch.equal(one.pool_energy[0], whole.pool_energy[problem])


def test_replace_names_what_it_does_not_know() -> None:
    with pytest.raises(
        ConfigError, match=r"unknown key 'stepsize' in GradientDescent\. Did you mean 'step_size'\?"
    ):
        GradientDescent().replace(stepsize=0.1)


def test_padded_fields_of_unlike_batches_go_together() -> None:
    wide = Padded(torch.arange(5 * 9.0).reshape(5, 3, 3))
    narrow = Padded(-torch.ones(2, 2, 2))
    problems = torch.tensor([3, 1])
    for whole, part in ((wide, narrow), (Padded(wide.square[:, :1, :2]), narrow)):
        put = whole.put(problems, torch.empty(0, dtype=torch.int64), part).square
        most = [max(a, b) for a, b in zip(whole.square.shape[1:], (2, 2), strict=True)]
        assert put.shape == (5, *most)
        assert torch.equal(put[problems][:, :2, :2], narrow.square)
        assert int((put[problems] != 0).sum()) == 8
        rows, columns = whole.square.shape[1:]
        assert torch.equal(put[[0, 2, 4]][:, :rows, :columns], whole.square[[0, 2, 4]])
    mask = torch.tensor([True, False, True, False, False])
    other = Padded(-torch.ones(5, 2, 2))
    for mixed in (wide.where(mask, other, SEGMENTS).square, other.where(~mask, wide, SEGMENTS).square):
        assert torch.equal(mixed[mask], wide.square[mask])
        assert (
            torch.equal(mixed[~mask][:, :2, :2], other.square[~mask]) and int((mixed[~mask] != 0).sum()) == 12
        )

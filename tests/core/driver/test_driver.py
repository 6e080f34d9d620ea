"""The driver: budgets, reasons, isolation, pauses, and that nothing depends on the batch."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, fields
from typing import Any

import pytest
import torch

from mlopt.core.batch.random import Draws, problem_keys
from mlopt.core.batch.segments import Segments
from mlopt.core.driver.driver import Driver, minimize, unroll
from mlopt.core.driver.external import ExternalOptimizer, Meter
from mlopt.core.driver.progress import Progress
from mlopt.core.driver.result import Result
from mlopt.core.driver.stop import Reason, Stop
from mlopt.core.errors import CheckpointError, InputError
from mlopt.core.landscapes.evaluation import Evaluation
from mlopt.core.landscapes.landscape import FunctionLandscape, Landscape
from mlopt.core.plugins.plugin import setting
from mlopt.core.protocols.optimizer import Found, Optimizer, State, per_problem, per_row
from mlopt.core.testing.surfaces import Watched, lennard_jones, quadratic

SIZES = [3, 1, 4, 3, 2]


@dataclass(frozen=True)
class Rolling(State):
    velocity: torch.Tensor = per_row()


class Momentum(Optimizer):
    """A local optimizer with a memory, so that a resume has something to lose."""

    rate: float = setting(0.02, "of the force", gt=0)

    def init(self, landscape: Landscape, x: torch.Tensor, key: torch.Tensor) -> Rolling:
        return Rolling(torch.zeros_like(x))

    def step(
        self, landscape: Landscape, x: torch.Tensor, evaluation: Evaluation, state: Rolling
    ) -> tuple[torch.Tensor, Rolling]:
        velocity = 0.8 * state.velocity + self.rate * evaluation.force
        return landscape.manifold.retract(x, velocity), Rolling(velocity)


@dataclass(frozen=True)
class Wandering(State):
    key: torch.Tensor = per_problem()
    counter: torch.Tensor = per_problem()
    energy: torch.Tensor = per_problem()
    x: torch.Tensor = per_row()


class Wander(Optimizer):
    """A search: random jumps, each of which counts as a minimum it has arrived at."""

    searching = True
    recovers = True

    def init(self, landscape: Landscape, x: torch.Tensor, key: torch.Tensor) -> Wandering:
        return Wandering(key, torch.zeros_like(key), x.new_zeros(len(key)), x)

    def step(
        self, landscape: Landscape, x: torch.Tensor, evaluation: Evaluation, state: Wandering
    ) -> tuple[torch.Tensor, Wandering]:
        draws = Draws(state.key, state.counter, landscape.segments)
        new_x = draws.normal_rows(x.shape[1]).to(x)
        return new_x, Wandering(state.key, draws.counter, evaluation.energy, x)

    def found(self, state: Wandering) -> Found:
        return Found(torch.isfinite(state.energy), state.energy, state.x)


def same(a: Result, b: Result) -> None:
    assert a.reason == b.reason
    for one in fields(Result):
        if one.name not in ("landscape", "reason"):
            mine, theirs = getattr(a, one.name), getattr(b, one.name)
            assert torch.equal(mine.nan_to_num(nan=-123.0), theirs.nan_to_num(nan=-123.0)), one.name


def run(driver: Driver, progress: Progress, steps: int) -> Progress:
    left = [steps]

    def pause() -> bool:
        left[0] -= 1
        return left[0] < 0

    return driver.advance(progress, pause)


@pytest.mark.parametrize("optimizer", [Momentum(), Wander()])
@pytest.mark.parametrize("calls", [1, 2, 17])
def test_the_budget_is_kept_to_the_call(optimizer: Optimizer, calls: int) -> None:
    landscape, x = quadratic(SIZES)
    watched = Watched(landscape)
    result = minimize(watched, optimizer, x, force_calls=calls)
    assert watched.calls[0] == calls * len(SIZES)
    assert result.calls.tolist() == [calls] * len(SIZES)
    assert result.reason == [Reason.BUDGET] * len(SIZES)
    assert not bool(result.converged.any()) and not bool(result.failed.any())


def test_problems_converge_each_at_its_own_time() -> None:
    landscape, x = quadratic(SIZES)
    x = torch.cat([x[:3], torch.zeros_like(x[3:4]), x[4:]])
    watched = Watched(landscape)
    result = minimize(watched, Momentum(), x, fmax=1e-4, force_calls=2000)
    assert result.reason == [Reason.CONVERGED] * 5 and bool(result.converged.all())
    assert result.calls[1] == 1 and len(set(result.calls.tolist())) > 2
    assert watched.calls[0] == int(result.calls.sum())
    again = landscape.evaluate(result.x)
    assert torch.equal(again.energy, result.energy)  # what is returned is the point that was judged
    assert torch.equal(landscape.segments.longest2(again.force).sqrt(), result.fmax)
    assert bool((result.fmax < 1e-4).all())


def test_a_search_returns_the_lowest_point_met() -> None:
    landscape, x = quadratic(SIZES)
    result = minimize(landscape, Wander(), x, force_calls=50, keep=4)
    assert torch.equal(landscape.evaluate(result.x).energy, result.energy)
    assert torch.allclose(result.pool_energy.amin(1), result.energy)
    assert result.pool_energy.shape == (5, 4) and result.pool_x.shape == (13, 4, 3)
    assert result.quenches.tolist() == [49] * 5  # the last evaluation has no step behind it
    for slot in range(4):
        there = landscape.evaluate(result.pool_x[:, slot]).energy
        assert torch.equal(there, result.pool_energy[:, slot])
    assert bool((result.pool_energy.sort(1).values.diff(dim=1) >= 2e-4).all())
    assert bool((result.pool_calls > 0).all())
    assert torch.equal(result.trace_energy[-1], result.energy)
    assert bool((result.trace_energy.diff(dim=0) <= 0).all())


@pytest.mark.parametrize("wanders", [False, True])
def test_of_what_wanders_the_lowest_point_counts(wanders: bool) -> None:
    """Unless a force ends it, or somebody asks otherwise."""

    class Swinging(Momentum):
        pass

    Swinging.wanders = wanders
    landscape, x = quadratic(SIZES)
    optimizer, keys = Swinging(rate=0.8), problem_keys(0, torch.arange(len(SIZES)))

    def end(stop: Stop, lowest: bool | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        driver = Driver(landscape, optimizer, stop, lowest=lowest)
        tally = driver.advance(driver.begin(x, keys)).outcome.tally
        assert torch.equal(landscape.evaluate(tally.x).energy, tally.energy)
        return tally.energy, tally.x

    way = torch.stack([end(Stop(calls), lowest=False)[0] for calls in range(1, 31)])
    lowest = way.amin(0)
    assert bool((way[-1] > lowest).any()), "it must have gone up again for this test to say anything"
    assert torch.equal(end(Stop(30), lowest=True)[0], lowest)
    assert torch.equal(end(Stop(30))[0], lowest if wanders else way[-1])
    assert torch.equal(end(Stop(30, fmax=1e-9))[0], way[-1])


def test_on_target() -> None:
    landscape, x = quadratic(SIZES)
    target, tolerance = 0.05, 0.01
    settings: dict[str, Any] = {"force_calls": 300, "target": target, "target_tolerance": tolerance}
    on = minimize(landscape, Momentum(), x, **settings)
    assert on.reason == [Reason.BUDGET] * 5 and bool((on.first_hit > 0).all())
    start = minimize(landscape, Momentum(), x, on_target="stop-start", **settings)
    assert start.reason == [Reason.TARGET] * 5
    assert torch.equal(start.calls, start.first_hit) and torch.equal(start.first_hit, on.first_hit)
    assert bool((start.energy <= target + tolerance).all())
    whole = minimize(landscape, Momentum(), x, on_target="stop-run", **settings)
    first = int(on.first_hit.min())
    assert whole.calls.tolist() == [first] * 5
    expected = [Reason.TARGET if hit == first else Reason.RUN_TARGET for hit in on.first_hit.tolist()]
    assert whole.reason == expected
    assert [row["first_hit"] for row in whole.table()] == [
        first if hit == first else None for hit in on.first_hit.tolist()
    ]


@pytest.mark.parametrize("what", ["energy", "force"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_non_finite_evaluation_fails_that_problem_alone(what: str, value: float) -> None:
    inner, x = lennard_jones(SIZES)
    clean = minimize(inner, Momentum(rate=1e-3), x, force_calls=30)

    class Spoiled(Watched):
        def evaluate(self, x: torch.Tensor) -> Evaluation:
            found = super().evaluate(x)
            bad = (self.problems == 2) & (self.calls[0] > 50)
            if what == "energy":
                return Evaluation(found.energy.masked_fill(bad, value), found.force)
            rows = self.segments.rows_of(bad)
            rows = rows & (torch.arange(len(rows)) == rows.int().argmax())  # one row of it
            return Evaluation(found.energy, found.force.masked_fill(rows[:, None], value))

        def select(self, problems: torch.Tensor) -> Watched:
            part = super().select(problems)
            part.__class__ = Spoiled
            return part

    result = minimize(Spoiled(inner), Momentum(rate=1e-3), x, force_calls=30)
    assert result.reason == [Reason.BUDGET, Reason.BUDGET, Reason.NON_FINITE, Reason.BUDGET, Reason.BUDGET]
    assert result.failed.tolist() == [False, False, True, False, False]
    assert result.calls.tolist() == [30, 30, 11, 30, 30]
    others = inner.segments.rows_of(torch.tensor([True, True, False, True, True]))
    assert torch.equal(result.x[others], clean.x[others])
    assert result.best == int(
        clean.energy.masked_fill(torch.tensor([0, 0, 1, 0, 0]).bool(), torch.inf).argmin()
    )


def test_a_search_that_recovers_has_ten_chances() -> None:
    landscape, x = quadratic(SIZES)
    result = minimize(Watched(landscape, poison=(2, 6)), Wander(), x, force_calls=40)
    assert result.reason[2] is Reason.NON_FINITE and int(result.calls[2]) == 15
    assert bool(torch.isfinite(result.energy).all())  # the best before stands
    at_once = minimize(Watched(landscape, poison=(2, 1)), Wander(), x, force_calls=40)
    assert int(at_once.calls[2]) == 1  # a bad start is not one to step back from
    assert result.table()[2]["reason"] == "non-finite"


@pytest.mark.parametrize("optimizer", [Momentum(), Wander()])
@pytest.mark.parametrize("seed", range(6))
def test_pauses_anywhere_change_nothing(optimizer: Optimizer, seed: int) -> None:
    from safetensors.torch import load, save

    rng = random.Random(seed)
    landscape, x = quadratic(SIZES)
    fmax = None if optimizer.searching else 1e-2
    stop = Stop(force_calls=150, fmax=fmax, target=0.3, target_tolerance=0.0)
    key = problem_keys(seed, torch.arange(5))
    whole = Driver(landscape, optimizer, stop)
    expected = whole.result(whole.advance(whole.begin(x, key)))
    progress = whole.begin(x, key)
    while not progress.done:
        progress = run(whole, progress, rng.randrange(40))
        tensors, meta = progress.to_checkpoint()
        data = save({name: tensor.clone().contiguous() for name, tensor in tensors.items()})
        driver = Driver(landscape, optimizer, stop)  # another process
        progress = driver.begin(x, key)
        progress.load_checkpoint(load(data), meta)
        if rng.random() < 0.2:
            driver.result(progress)  # looking does not touch
    same(whole.result(progress), expected)


@pytest.mark.parametrize("optimizer", [Momentum(), Wander()])
@pytest.mark.parametrize("seed", range(4))
def test_pieces_of_any_length_are_the_whole_run(optimizer: Optimizer, seed: int) -> None:
    rng = random.Random(seed)
    landscape, x = quadratic(SIZES)
    watched = Watched(landscape)
    fmax = None if optimizer.searching else 1e-2
    driver = Driver(watched, optimizer, Stop(150, fmax=fmax, target=0.3, target_tolerance=0.0))
    key = problem_keys(seed, torch.arange(5))
    whole, made = driver.result(driver.advance(driver.begin(x, key))), watched.calls[0]
    progress = driver.begin(x, key)
    for until in itertools.accumulate(rng.choice([0, 1, 2, 40]) for _ in itertools.count()):
        left, before = progress.active, progress.calls
        progress = driver.advance(progress, until=until)
        if progress.done:
            break
        assert progress.calls == max(before, until) and progress.active.numel() <= left.numel()
        kept, calls = progress.copy(), progress.calls
        driver.advance(progress.copy(), until=until + 3)
        same(driver.result(progress), driver.result(kept))  # carrying a copy on changes nothing
        assert driver.advance(progress, until=until) is progress and progress.calls == calls
        assert not calls or not torch.equal(
            progress.x, progress.tally.x
        )  # the step after the last call has been taken
    same(driver.result(progress), whole)
    assert driver.advance(progress, until=10**6) is progress and watched.calls[0] > made


def test_until_and_pause_stop_at_what_comes_first() -> None:
    landscape, x = quadratic(SIZES)
    driver, key = Driver(landscape, Momentum(), Stop(50)), problem_keys(0, torch.arange(5))
    for steps, until, expected in ((3, 7, 3), (7, 3, 3), (9, 60, 9), (99, 60, 50)):
        left = [steps]

        def pause(left: list[int] = left) -> bool:
            left[0] -= 1
            return left[0] <= 0

        assert driver.advance(driver.begin(x, key), pause, until).calls == expected


def test_until_is_refused_where_the_loop_is_not_ours() -> None:
    class Own(ExternalOptimizer):
        def run(self, meter: Meter, seed: int) -> None: ...

    landscape, x = quadratic(SIZES)
    driver = Driver(landscape, Own(), Stop(50))
    with pytest.raises(
        InputError, match=r"`until` cannot stop Own, which owns its loop .*; leave `until` out"
    ):
        driver.advance(driver.begin(x, problem_keys(0, torch.arange(5))), until=3)


def test_a_checkpoint_of_another_optimizer_is_refused() -> None:
    landscape, x = quadratic(SIZES)
    key = problem_keys(0, torch.arange(5))
    tensors, meta = Driver(landscape, Wander(), Stop()).begin(x, key).to_checkpoint()
    with pytest.raises(CheckpointError, match=r"lacks 'state.velocity': it was written by another optimizer"):
        Driver(landscape, Momentum(), Stop()).begin(x, key).load_checkpoint(tensors, meta)


def test_a_problem_does_not_depend_on_its_batch() -> None:
    landscape, x = lennard_jones([7] * 150)
    for optimizer in (Momentum(rate=1e-3), Wander()):
        whole = minimize(landscape, optimizer, x, force_calls=30, seed=5)
        for i in (0, 1, 74, 149):
            index = torch.tensor([i])
            rows = torch.arange(7 * i, 7 * i + 7)
            part = landscape.select(index)
            alone = minimize(part, optimizer, x[rows], force_calls=30, seed=5, ids=index)
            assert torch.equal(alone.x, whole.x[rows]) and torch.equal(alone.energy, whole.energy[index])
            assert torch.equal(alone.trace_energy[:, 0], whole.trace_energy[:, i])
        other = minimize(landscape, optimizer, x, force_calls=30, seed=6)
        assert optimizer.searching != torch.equal(other.x, whole.x)


def test_results_make_a_table_and_points() -> None:
    import pandas as pd

    landscape, x = quadratic(SIZES)
    result = minimize(landscape, Momentum(), x, fmax=1e-3, force_calls=40, target=0.1)
    frame = pd.DataFrame(result.table())
    assert list(frame.columns) == ["index", "energy", "fmax", "calls", "first_hit", "quenches", "reason"]
    assert len(frame) == len(result) == 5
    assert set(frame.reason) <= {"budget", "converged"}
    assert frame.energy.tolist() == result.energy.tolist()
    assert torch.equal(torch.cat([result.point(i) for i in range(5)]), result.x)
    with pytest.raises(InputError, match="not about atoms"):
        result.atoms()


def test_unroll_is_minimize_with_gradients() -> None:
    landscape, x = quadratic([2, 3])
    end, energies = unroll(landscape, Momentum(), x, steps=9)
    expected = minimize(landscape, Momentum(), x, force_calls=10)
    assert torch.allclose(end, expected.x, atol=1e-15) and torch.allclose(energies[-1], expected.energy)
    assert energies.shape == (10, 2)

    def last(rate: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        return unroll(landscape, Momentum().replace(rate=rate), start, steps=6)[1][-1]

    rate = torch.tensor(0.02, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(last, (rate, x.clone().requires_grad_(True)))


def test_gradients_reach_the_landscape() -> None:
    stiffness = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)

    def last(k: torch.Tensor) -> torch.Tensor:
        def energy(x: torch.Tensor, segments: Segments) -> torch.Tensor:
            return 0.5 * k * segments.sum(x * x)

        landscape = FunctionLandscape(energy, Segments.uniform(2, 2))
        x = torch.ones(4, 3, dtype=torch.float64, requires_grad=True)
        return unroll(landscape, Momentum(), x, steps=3)[0]

    assert torch.autograd.gradcheck(last, (stiffness,))


@pytest.mark.parametrize(
    "change,message",
    [
        ({"fmax": 1e-3}, "`fmax` cannot end Wander: it searches on after every minimum"),
        ({"force_calls": 0}, "`force_calls` must be at least 1, got 0"),
        ({"on_target": "stop-run"}, "`on_target: stop-run` needs a `target` energy"),
        ({"target": 0.0, "target_tolerance": -1.0}, "`target_tolerance` must not be negative, got -1.0"),
        ({"ids": torch.arange(4)}, r"`key` must have shape \(5,\), got \(4,\)"),
    ],
)
def test_bad_requests(change: dict[str, Any], message: str) -> None:
    landscape, x = quadratic(SIZES)
    with pytest.raises(InputError, match=message):
        minimize(landscape, Wander(), x, **change)


def test_bad_points() -> None:
    landscape, x = quadratic(SIZES)
    with pytest.raises(
        InputError, match=r"`x` must have shape \(13, d\) to fit the landscape, got \(12, 3\)"
    ):
        minimize(landscape, Momentum(), x[:-1])
    with pytest.raises(InputError, match="`fmax` must be positive and finite, got nan"):
        minimize(landscape, Momentum(), x, fmax=float("nan"))

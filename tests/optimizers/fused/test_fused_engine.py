"""The fused engine around its steps: stops, traces and pools as the eager loop has them; nothing depends on slices,
threads or batches; what fails, fails alone.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from mlopt.core.atoms.systems import Systems
from mlopt.core.batch.random import problem_keys
from mlopt.core.driver.driver import Driver, minimize
from mlopt.core.driver.progress import Progress
from mlopt.core.driver.stop import Reason, Stop
from mlopt.core.landscapes.landscape import AtomsLandscape
from mlopt.core.landscapes.potential import Potential
from mlopt.core.protocols.optimizer import Optimizer
from mlopt.optimizers import LBFGS, Adam, BasinHopping, Fire, GradientDescent
from mlopt.optimizers.fused import engine
from mlopt.potentials import LennardJones, Morse

pytest.importorskip("numba")

LJ = LennardJones()
SIZES = [5, 8, 8, 6]
#: many hops in few steps
HOPS = BasinHopping(quench_calls=8, quench_tolerance=0.5)
CODE = {reason.name: reason.code for reason in Reason}


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def clusters(sizes: list[int], fixed: int = 0) -> Systems:
    """The first ``fixed`` atoms of each cannot move."""
    number = torch.cat([torch.arange(n) for n in sizes]) if sizes else torch.zeros(0, dtype=torch.int64)
    pos = torch.zeros(len(number), 3, dtype=torch.float64)
    ptr = torch.tensor([0, *sizes]).cumsum(0)
    return Systems(pos, torch.full_like(number, 18), ptr, fixed=number < fixed)


def grid(systems: Systems) -> torch.Tensor:
    """Corners of a distorted cube: so near to minima that paths do not part by rounding."""
    number = torch.arange(len(systems.pos)) - systems.segments.rows_of(systems.ptr[:-1])
    corners = torch.stack([number % 2, number // 2 % 2, number // 4], -1).to(torch.float64)
    noise = torch.rand(corners.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return 1.05 * corners + 0.2 * noise


class Case:
    """Systems with starts and keys, to be run by either engine."""

    def __init__(self, optimizer: Optimizer, sizes: list[int] | None = None, **given: Any) -> None:
        self.optimizer = optimizer
        systems = clusters(SIZES if sizes is None else sizes, given.get("fixed", 0))
        potential: Potential = given.get("potential", LJ)
        self.landscape = AtomsLandscape(systems, potential)
        self.key = problem_keys(0, torch.arange(len(systems)))
        self.x = grid(systems)
        self.keep = given.get("keep", 10)  # as in many others: each number compiles anew

    def driver(self, stop: Stop, name: Any = "fused") -> Driver:
        return Driver(self.landscape, self.optimizer, stop, self.keep, name)

    def run(self, stop: Stop, name: Any = "fused") -> Progress:
        driver = self.driver(stop, name)
        return driver.advance(driver.begin(self.x, self.key))


def assert_equal(one: Progress, other: Progress) -> None:
    """Bit for bit."""
    (ours, about), (theirs, about_theirs) = one.to_checkpoint(), other.to_checkpoint()
    assert about == about_theirs
    assert list(ours) == list(theirs)
    for name, value in ours.items():
        same = torch.equal(value.nan_to_num(nan=12.5), theirs[name].nan_to_num(nan=12.5))
        assert same, f"{name}: {value} {theirs[name]}"


def outcome(progress: Progress, problem: int, sizes: list[int]) -> dict[str, torch.Tensor]:
    """All that is known in the end of one problem."""
    start = sum(sizes[:problem])
    rows = torch.arange(start, start + sizes[problem])
    return progress.outcome.select(torch.tensor([problem]), rows).tensors()


STOPS = {
    "budget": Stop(37),
    "fmax": Stop(400, fmax=0.05),
    "target": Stop(60, target=-9.0),
    "target of each": Stop(60, target=-9.0, on_target="stop-start"),
    "target of one": Stop(60, target=-9.0, on_target="stop-run"),
    "target of one, later": Stop(60, target=-16.6, target_tolerance=0.0, on_target="stop-run"),
    "target of one, and fmax": Stop(400, fmax=3.0, target=-12.0, on_target="stop-run"),
    "target out of reach": Stop(40, target=-100.0, on_target="stop-run"),
    "at once": Stop(60, target=1e30, on_target="stop-run"),
}


@pytest.mark.parametrize("optimizer", [LBFGS(), HOPS], ids=["lbfgs", "hopping"])
@pytest.mark.parametrize("name", STOPS)
def test_ends_as_the_eager_loop(name: str, optimizer: Optimizer) -> None:
    stop = STOPS[name]
    if optimizer.searching and stop.fmax is not None:
        return
    case = Case(optimizer)
    eager, fused = case.run(stop, "eager"), case.run(stop)
    ours, theirs = eager.outcome.tensors(), fused.outcome.tensors()
    assert fused.done and eager.calls == fused.calls and eager.trace_calls == fused.trace_calls
    for field, value in ours.items():
        if value.is_floating_point():
            torch.testing.assert_close(
                theirs[field], value, rtol=1e-6, atol=1e-6, msg=lambda m, f=field: f"{f}: {m}"
            )
        else:
            assert torch.equal(value, theirs[field]), field
    traces = torch.stack(eager.trace_energy), torch.stack(fused.trace_energy)
    torch.testing.assert_close(traces[1], traces[0], rtol=1e-6, atol=1e-6)


def test_the_stops_that_are_compared_do_happen() -> None:
    reasons = {name: set(Case(LBFGS()).run(stop).outcome.reason.tolist()) for name, stop in STOPS.items()}
    assert reasons["budget"] == reasons["target"] == {CODE["BUDGET"]}
    assert reasons["fmax"] == {CODE["CONVERGED"]}
    assert CODE["TARGET"] in reasons["target of each"]
    assert reasons["target of one"] == reasons["at once"] | {CODE["RUN_TARGET"]}
    assert {CODE["TARGET"], CODE["RUN_TARGET"], CODE["CONVERGED"]} >= reasons["target of one, and fmax"]
    hops = Case(HOPS).run(STOPS["target"]).outcome.tally
    assert int(hops.quenches.min()) >= 3 and bool((hops.first_hit > 0).any())


@pytest.mark.slow
def test_nothing_is_remembered_where_nothing_is_asked_for() -> None:
    case = Case(HOPS, keep=0)
    eager, fused = case.run(Stop(40), "eager").outcome.tally, case.run(Stop(40)).outcome.tally
    assert fused.pool_energy.shape == (4, 0)
    assert torch.equal(eager.quenches, fused.quenches)
    torch.testing.assert_close(fused.energy, eager.energy, rtol=1e-6, atol=0.0)


def test_conditions_that_are_met_before_the_beginning() -> None:
    """A progress that went on under other conditions: one call each, as the eager loop takes."""
    case = Case(LBFGS())
    driver = case.driver(Stop(30, target=-9.0), "eager")
    done = []
    before = driver.advance(driver.begin(case.x, case.key), pause=lambda: True)
    while before.calls < 29:
        before = driver.advance(before, pause=lambda: True)
    assert bool((before.tally.first_hit > 0).any())
    for stop in (Stop(7), Stop(60, target=-9.0, on_target="stop-run")):
        done += [case.driver(stop, name).advance(copy.deepcopy(before)) for name in ("eager", "fused")]
    for eager, fused in (done[:2], done[2:]):
        assert eager.done and fused.done and eager.calls == fused.calls == 30
        assert torch.equal(eager.outcome.reason, fused.outcome.reason)
        assert torch.equal(eager.outcome.calls, fused.outcome.calls)


@pytest.mark.parametrize("optimizer", [LBFGS(), Fire(delay=3), Adam(), HOPS], ids=str)
def test_slices_checkpoints_threads_and_batches_leave_every_bit(
    optimizer: Optimizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, stop = Case(optimizer), Stop(90, target=-9.5, on_target="stop-start")
    whole = case.run(stop)
    for problem, n in enumerate(SIZES):
        alone = copy.copy(case)
        first = torch.tensor([problem])
        _, rows = case.landscape.segments.select(first)
        alone.landscape, alone.x, alone.key = case.landscape.select(first), case.x[rows], case.key[first]
        ours, theirs = outcome(whole, problem, SIZES), outcome(alone.run(stop), 0, [n])
        for name, value in ours.items():
            assert torch.equal(value.nan_to_num(), theirs[name].nan_to_num()), f"alone: {name}"
    torch.set_num_threads(2)
    assert_equal(case.run(stop), whole)
    torch.set_num_threads(1)
    driver = case.driver(stop)
    for first_steps in (1, 7):
        monkeypatch.setattr(engine, "_FIRST_STEPS", first_steps)
        progress = driver.begin(case.x, case.key)
        while not progress.done:
            progress = driver.advance(progress, pause=lambda: True)
            fresh = driver.begin(case.x, case.key)
            fresh.load_checkpoint(*copy.deepcopy(progress.to_checkpoint()))
            progress = fresh
        for name, value in whole.outcome.tensors().items():
            assert torch.equal(value, progress.outcome.tensors()[name]), f"slices of {first_steps}: {name}"
        assert whole.trace_calls == progress.trace_calls
        assert torch.equal(torch.stack(whole.trace_energy), torch.stack(progress.trace_energy))


@pytest.mark.parametrize("optimizer", [LBFGS(), HOPS], ids=str)
def test_pieces_until_a_number_of_calls_are_the_whole_run(
    optimizer: Optimizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, stop = Case(optimizer), Stop(90, target=-9.5, on_target="stop-start")
    whole, driver = case.run(stop), case.driver(stop)
    for first_steps in (4, 20):
        monkeypatch.setattr(engine, "_FIRST_STEPS", first_steps)
        progress = driver.begin(case.x, case.key)
        for until in (1, 2, 2, 33, 50, 90):
            progress = driver.advance(progress, until=until)
            assert progress.done or progress.calls == until
        assert progress.done and progress.calls == whole.calls
        for name, value in whole.outcome.tensors().items():
            assert torch.equal(value, progress.outcome.tensors()[name]), name
        assert whole.trace_calls == progress.trace_calls
        assert torch.equal(torch.stack(whole.trace_energy), torch.stack(progress.trace_energy))


def test_slices_grow_and_end_on_the_target_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    case, stop = Case(HOPS), Stop(200, target=-12.3, on_target="stop-run")
    whole = case.run(stop)
    assert CODE["TARGET"] in whole.outcome.reason.tolist()
    monkeypatch.setattr(engine, "_FIRST_STEPS", 1)
    monkeypatch.setattr(engine, "_SLICE", 1e-9)
    assert_equal(case.run(stop), whole)


def test_fixed_atoms_stay() -> None:
    case = Case(HOPS, fixed=2)
    progress = case.run(Stop(60))
    fixed = case.landscape.systems.fixed
    for x in (progress.outcome.tally.x, progress.outcome.tally.pool_x[:, 0]):
        assert torch.equal(x[fixed], case.x[fixed]) and not torch.equal(x[~fixed], case.x[~fixed])


@pytest.mark.parametrize("kind", ["nan", "infinite", "one spot"])
@pytest.mark.parametrize(
    "optimizer,potential",
    [(LBFGS(), LJ), (HOPS, LJ), (GradientDescent(step_size=2e-4), Morse())],
    ids=["lbfgs", "hopping", "gradient descent, morse"],
)
def test_a_bad_start_fails_alone(optimizer: Optimizer, potential: Potential, kind: str) -> None:
    case, stop = Case(optimizer, potential=potential), Stop(40)
    whole = case.run(stop)
    row = SIZES[0]
    case.x = case.x.clone()
    case.x[row] = {"nan": torch.tensor(torch.nan), "infinite": torch.tensor(torch.inf)}.get(
        kind, case.x[row + 1]
    )
    eager, fused = case.run(stop, "eager"), case.run(stop)
    assert torch.equal(eager.outcome.reason, fused.outcome.reason)
    assert torch.equal(eager.outcome.calls, fused.outcome.calls)
    assert fused.outcome.reason.tolist() == [2, CODE["NON_FINITE"], 2, 2] and int(fused.outcome.calls[1]) == 1
    for problem in (0, 2, 3):
        ours, theirs = outcome(whole, problem, SIZES), outcome(fused, problem, SIZES)
        for name, value in ours.items():
            assert torch.equal(value, theirs[name]), name


@pytest.mark.parametrize("optimizer", [LBFGS(), HOPS, Fire(delay=3), Adam()], ids=str)
def test_few_atoms_and_none(optimizer: Optimizer) -> None:
    case = Case(optimizer, [1, 1, 2])
    eager, fused = case.run(Stop(25), "eager").outcome, case.run(Stop(25)).outcome
    assert torch.equal(eager.reason, fused.reason) and torch.equal(eager.tally.quenches, fused.tally.quenches)
    torch.testing.assert_close(fused.tally.energy, eager.tally.energy)
    torch.testing.assert_close(fused.tally.x, eager.tally.x, rtol=1e-6, atol=1e-6)
    none = Case(optimizer, []).run(Stop(25))
    assert none.done and none.outcome.reason.shape == (0,)


@pytest.mark.parametrize(
    "optimizer,changed",
    [
        (Adam(), {"step_size": [0.002, 0.03, 0.01, 0.02]}),
        (LBFGS(), {"max_step": [0.05, 0.3, 0.1, 0.2], "scale": [0.01, 0.02, 0.014, 0.005]}),
    ],
    ids=["adam", "lbfgs"],
)
def test_one_number_a_problem(optimizer: Optimizer, changed: dict[str, list[float]]) -> None:
    """Systems end at different times, and each goes on with the number that is its own."""
    settings = {name: torch.tensor(value, dtype=torch.float64) for name, value in changed.items()}
    case = Case(optimizer.replace(**settings), [6, 6, 6, 6])
    stop = Stop(150, fmax=2.0)
    eager, fused = case.run(stop, "eager"), case.run(stop)
    calls = fused.outcome.calls
    assert len(set(calls.tolist())) >= 3 and torch.equal(calls, eager.outcome.calls)
    torch.testing.assert_close(fused.outcome.tally.x, eager.outcome.tally.x, rtol=1e-6, atol=1e-6)
    for problem in range(4):
        alone = copy.copy(case)
        first = torch.tensor([problem])
        alone.optimizer = optimizer.replace(
            **{name: float(value[problem]) for name, value in settings.items()}
        )
        _, rows = case.landscape.segments.select(first)
        alone.landscape, alone.x, alone.key = case.landscape.select(first), case.x[rows], case.key[first]
        theirs = outcome(alone.run(stop), 0, [6])
        for name, value in outcome(fused, problem, [6] * 4).items():
            assert torch.equal(value, theirs[name]), name


def test_minimize_takes_an_engine() -> None:
    case = Case(LBFGS())
    done = [
        minimize(case.landscape, LBFGS(), case.x, force_calls=300, fmax=1e-6, engine=e)
        for e in ("eager", "fused")
    ]
    torch.testing.assert_close(done[0].energy, done[1].energy, rtol=1e-9, atol=0.0)

"""Annealing, minima hopping and scipy's searches: that they find, and that they do it as described."""

from __future__ import annotations

import pytest
import torch

from mlopt.core.batch.random import problem_keys
from mlopt.core.batch.segments import Segments
from mlopt.core.driver.driver import Driver, minimize
from mlopt.core.driver.stop import Reason, Stop
from mlopt.core.errors import ConfigError, InputError
from mlopt.core.landscapes.landscape import FunctionLandscape
from mlopt.core.plugins.plugin import build
from mlopt.core.protocols.optimizer import Optimizer
from mlopt.core.testing.surfaces import Watched, lennard_jones, quadratic, spins
from mlopt.optimizers.local.fire import Fire
from mlopt.optimizers.searches.annealing import SimulatedAnnealing
from mlopt.optimizers.searches.basin_hopping import BasinHopping
from mlopt.optimizers.searches.minima_hopping import MinimaHopping
from mlopt.optimizers.searches.restarts import RandomRestarts
from mlopt.optimizers.searches.scipy_search import ScipyBasinHopping, ScipyDualAnnealing


def ripples(x: torch.Tensor, segments: Segments) -> torch.Tensor:
    """Rastrigin's function: minima near all integers, the lowest, 0, at the origin."""
    return segments.sum(x * x + 2.0 * (1.0 - torch.cos(2.0 * torch.pi * x)))


def far_out(n: int = 4) -> tuple[FunctionLandscape, torch.Tensor]:
    landscape = FunctionLandscape(ripples, Segments.uniform(n, 2))
    return landscape, torch.full((2 * n, 1), 2.6, dtype=torch.float64)


@pytest.mark.parametrize(
    "optimizer,calls",
    [
        (SimulatedAnnealing(steps=3000, step_size=0.5), 3000),
        pytest.param(
            MinimaHopping(quench=Fire(dt=0.02), temperature=2.0, threshold=2.0),
            3000,
            marks=pytest.mark.slow,
        ),
        (ScipyBasinHopping(step_size=1.0), 1500),
        pytest.param(ScipyDualAnnealing(margin=3.0), 1500, marks=pytest.mark.slow),
    ],
    ids=lambda value: type(value).__name__,
)
def test_searches_leave_the_wrong_minimum(optimizer: Optimizer, calls: int) -> None:
    landscape, x = far_out()
    local = minimize(landscape, Fire(dt=0.02), x, force_calls=500, fmax=1e-4)
    assert float(local.energy.min()) > 5.0  # what has to be left
    found = minimize(landscape, optimizer, x, force_calls=calls, target=0.0, target_tolerance=0.5)
    assert int((found.energy < 0.5).sum()) >= 3, found.energy  # the second lowest minimum has 0.975
    assert torch.equal(found.first_hit > 0, found.energy < 0.5)


@pytest.mark.slow
def test_minima_hopping_finds_the_icosahedron() -> None:
    landscape, x = lennard_jones([13, 13, 13])
    found = minimize(
        landscape,
        MinimaHopping(),
        x,
        force_calls=8000,
        target=-44.326801,
        target_tolerance=0.01,
        on_target="stop-start",
    )
    assert found.reason == [Reason.TARGET] * 3
    assert bool((found.quenches > 1).all()) and bool((found.pool_energy[:, 0] < -30).all())


def test_minima_hopping_adapts_as_described() -> None:
    # one minimum only: every escape comes back to it, so the temperature rises by beta_same each time
    landscape, x = quadratic([2, 3])
    optimizer = MinimaHopping(quench=Fire(dt=0.05, dt_max=0.3), dt=0.05, quench_tolerance=1e-4)
    driver = Driver(landscape, optimizer, Stop(force_calls=10_000))
    asked = iter(range(1501))
    progress = driver.advance(driver.begin(x, problem_keys(0, torch.arange(2))), lambda: next(asked) == 1500)
    state, quenches = progress.state, progress.tally.quenches
    returns = (quenches - 1).to(torch.float64)
    assert bool((returns > 2).all())
    assert torch.allclose(state.temperature, 0.5 * 1.1**returns)
    assert torch.equal(
        state.threshold, torch.ones(2, dtype=torch.float64)
    )  # nothing else to accept or to reject
    assert state.hops.tolist() == [1, 1]
    assert progress.tally.pool_energy.isfinite().sum(1).tolist() == [1, 1]


@pytest.mark.parametrize("search", [BasinHopping, MinimaHopping, RandomRestarts])
@pytest.mark.parametrize(
    ("quench", "message"),
    [
        (
            "basin-hopping",
            "is a search, which does not end at a minimum; take a local optimizer such as lbfgs",
        ),
        ("annealing", "is a search, which does not end at a minimum; take a local optimizer such as lbfgs"),
        ("dimer", "ends at a saddle, not at a minimum; take lbfgs or fire"),
        ("levenberg-marquardt", "minimises sums of squares, and the energy of a system is none: it trains"),
    ],
)
def test_a_quench_ends_at_a_minimum(search: type[Optimizer], quench: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(search, {"quench": quench})
    assert "quench: " in str(caught.value) and message in str(caught.value)


def test_annealing_starts_at_the_wanted_acceptance() -> None:
    landscape, x = lennard_jones([7] * 40)
    optimizer = SimulatedAnnealing(
        steps=2000, calibration=200, start_acceptance=0.8, adapt=False, step_size=0.02
    )
    driver = Driver(landscape, optimizer, Stop(force_calls=10_000))
    progress = driver.begin(x, problem_keys(0, torch.arange(40)))
    asked = iter(range(10_000))
    state = driver.advance(progress, lambda: next(asked) == 200).state  # the start and the calibration
    chance = torch.exp(-state.rises / state.temperature[:, None]).mean(-1)
    assert bool(state.rises.isfinite().all())
    assert torch.allclose(chance, torch.full_like(chance, 0.8), atol=1e-6)
    first = state.temperature
    last = driver.advance(progress, lambda: next(asked) == 2500).state.temperature
    assert torch.allclose(last / first, torch.full_like(first, 1e-4))  # cooled over 2000 moves, then constant


def test_annealing_adapts_its_moves() -> None:
    landscape, x = quadratic([3] * 20)
    steps = 4000
    optimizer = SimulatedAnnealing(steps=steps, step_size=0.5, start_temperature=1e-3, cooling=1.0)
    driver = Driver(landscape, optimizer, Stop(force_calls=steps + 1))
    taken = []
    progress = driver.begin(x, problem_keys(0, torch.arange(20)))

    def pause() -> bool:
        taken.append(progress.state.energy)
        return False

    driver.advance(progress, pause)
    energies = torch.stack(taken[steps // 2 :])
    share = float((energies.diff(dim=0) != 0).double().mean())
    assert share == pytest.approx(0.5, abs=0.05)


def test_annealing_settings() -> None:
    with pytest.raises(ConfigError, match="steps must be more than calibration, got 40 and 50"):
        build(SimulatedAnnealing, {"steps": 40})
    assert build(SimulatedAnnealing, {"steps": 40, "start_temperature": 1.0}).steps == 40


def test_searches_survive_a_bad_call_now_and_then() -> None:
    # the energy is NaN beyond a wall: moves over it are taken back
    def energy(x: torch.Tensor, segments: Segments) -> torch.Tensor:
        return segments.sum(torch.where(x.abs() > 3.0, torch.nan, 1.0) * (x * x)) + ripples(x, segments)

    landscape = FunctionLandscape(energy, Segments.uniform(3, 2))
    x = torch.full((6, 1), 2.6, dtype=torch.float64)
    for optimizer in (
        SimulatedAnnealing(steps=800, step_size=0.5),
        MinimaHopping(quench=Fire(dt=0.01), temperature=4.0),
        ScipyBasinHopping(step_size=1.0),
    ):
        found = minimize(landscape, optimizer, x, force_calls=800)
        assert found.reason == [Reason.BUDGET] * 3, optimizer
        assert bool(torch.isfinite(found.energy).all())


@pytest.mark.parametrize(
    "optimizer", [ScipyBasinHopping(), ScipyDualAnnealing()], ids=lambda o: type(o).__name__
)
def test_scipy_searches_run_problem_by_problem(optimizer: Optimizer) -> None:
    landscape, x = lennard_jones([4, 5, 4])
    watched = Watched(landscape)
    driver = Driver(watched, optimizer, Stop(force_calls=150), keep=4)
    begun = driver.begin(x, problem_keys(0, torch.arange(3)))
    progress = driver.advance(begun, lambda: watched.calls[0] >= 300)
    assert progress.active.tolist() == [2] and watched.calls[0] == 300 == progress.total_calls
    between = driver.result(progress)
    assert between.reason == [Reason.BUDGET, Reason.BUDGET, Reason.RUNNING]
    found = driver.result(driver.advance(progress))
    assert watched.calls[0] == 450 and found.calls.tolist() == [150] * 3
    assert found.energy[0] < -5.9 and found.energy[1] < -8.9  # LJ4 -6, LJ5 -9.1039
    if isinstance(optimizer, ScipyBasinHopping):
        assert bool((found.quenches >= 2).all())
        assert torch.allclose(found.pool_energy.amin(1), found.energy, atol=1e-4)


def test_scipy_search_stops_within_a_problem_for_who_insists() -> None:
    landscape, x = lennard_jones([4, 5])
    driver = Driver(landscape, ScipyBasinHopping(), Stop(force_calls=150), keep=4)
    whole = driver.result(driver.advance(driver.begin(x, problem_keys(0, torch.arange(2)))))
    asked = iter(range(10_000))
    progress = driver.advance(driver.begin(x, problem_keys(0, torch.arange(2))), lambda: next(asked) >= 200)
    assert progress.active.tolist() == [1] and progress.total_calls == 150  # the second begins anew
    found = driver.result(driver.advance(progress))
    assert torch.equal(found.energy, whole.energy) and torch.equal(found.x, whole.x)


def test_scipy_searches_stop_on_target() -> None:
    landscape, x = lennard_jones([4, 5, 4])
    optimizer = ScipyBasinHopping()
    each = minimize(landscape, optimizer, x, force_calls=400, target=-6.0, on_target="stop-start")
    assert each.reason == [Reason.TARGET] * 3
    assert torch.equal(each.first_hit, each.calls)
    run = minimize(landscape, optimizer, x, force_calls=400, target=-6.0, on_target="stop-run")
    assert run.reason == [Reason.TARGET, Reason.RUN_TARGET, Reason.RUN_TARGET]
    assert run.calls.tolist()[1:] == [0, 0]
    on = minimize(landscape, optimizer, x, force_calls=400, target=-6.0)
    assert on.reason == [Reason.BUDGET] * 3 and torch.equal(on.first_hit, each.first_hit)


def test_scipy_searches_refuse_what_they_cannot_do() -> None:
    landscape, x = spins([3])
    with pytest.raises(InputError, match="ScipyBasinHopping works in flat space, not on UnitSphere"):
        minimize(landscape, ScipyBasinHopping(), x)
    flat, x = quadratic([3])
    with pytest.raises(InputError, match="owns its loop and has no step"):
        ScipyBasinHopping().step(flat, x, flat.evaluate(x), None)
    with pytest.raises(InputError, match="`fmax` cannot end ScipyDualAnnealing"):
        minimize(flat, ScipyDualAnnealing(), x, fmax=1e-3)

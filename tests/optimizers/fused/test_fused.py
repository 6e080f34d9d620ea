"""The fused engine takes the steps of the eager one: every optimizer, move and branch, from the same `Progress`."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from mlopt.core.atoms.systems import Systems
from mlopt.core.batch.random import problem_keys
from mlopt.core.driver.driver import Driver
from mlopt.core.driver.progress import Progress
from mlopt.core.driver.stop import Stop
from mlopt.core.landscapes.landscape import AtomsLandscape
from mlopt.core.landscapes.potential import Potential
from mlopt.core.protocols.optimizer import Optimizer
from mlopt.optimizers import (
    LBFGS,
    Adam,
    Angular,
    BasinHopping,
    Bussi,
    Displacement,
    Exchange,
    Fire,
    GradientDescent,
    Langevin,
    NoseHoover,
    SphereStart,
    VelocityVerlet,
)
from mlopt.optimizers.fused import engine
from mlopt.potentials import LennardJones, Morse

pytest.importorskip("numba")

LJ = LennardJones()
#: what single precision can tell of a rise in energy
COARSE = 1e-5
#: relative to the largest number of a tensor
# in float32 the inverse curvature, a ratio of differences, is good to some per cent; what is wrong shows in float64
TOLERANCE = {torch.float64: 1e-10, torch.float32: 5e-2}
SIZES = [5, 8, 8, 6]


@pytest.fixture(autouse=True)
def _single_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_FIRST_STEPS", 1)


def clusters(dtype: torch.dtype, fixed: int = 0) -> Systems:
    """Four of three sizes and two kinds, in turn; the first ``fixed`` atoms of each cannot move."""
    number = torch.cat([torch.arange(n) for n in SIZES])
    pos = torch.zeros(len(number), 3, dtype=dtype)
    z, ptr = torch.where(number % 3 == 1, 36, 18), torch.tensor([0, *SIZES]).cumsum(0)
    return Systems(pos, z, ptr, fixed=number < fixed)


def begin(
    optimizer: Optimizer, dtype: torch.dtype, potential: Potential = LJ, fixed: int = 0
) -> tuple[Driver, Driver, Progress]:
    """The eager driver, the fused one, and where both begin."""
    systems = clusters(dtype, fixed)
    landscape, keys = AtomsLandscape(systems, potential), problem_keys(0, torch.arange(len(SIZES)))
    x = SphereStart().sample(systems, landscape.diameter, keys).to(dtype)
    drivers = [Driver(landscape, optimizer, Stop(10_000), 3, name) for name in ("eager", "fused")]
    assert drivers[0].engine is None and drivers[1].engine is not None
    return drivers[0], drivers[1], drivers[0].begin(x, keys)


def stepped(driver: Driver, progress: Progress) -> Progress:
    """One step on; ``progress`` stays as it is."""
    before = progress.calls
    after = driver.advance(copy.deepcopy(progress), pause=lambda: True)
    assert after.calls == before + 1
    return after


def assert_same(eager: Progress, fused: Progress, tolerance: float) -> None:
    """Integers and booleans are equal, other numbers are close."""
    (ours, about), (theirs, about_theirs) = eager.to_checkpoint(), fused.to_checkpoint()
    assert about == about_theirs and eager.unsound == fused.unsound
    assert list(ours) == list(theirs)
    for name, one in ours.items():
        other = theirs[name]
        assert one.dtype == other.dtype and one.shape == other.shape, name
        if not one.is_floating_point():
            assert torch.equal(one, other), f"{name}: {one} {other}"
            continue
        numbers = one[one.isfinite()].abs()
        scale = float(numbers.max()) if numbers.numel() else 0.0
        torch.testing.assert_close(
            other,
            one,
            rtol=tolerance,
            atol=tolerance * scale,
            equal_nan=True,
            msg=lambda m, n=name: f"{n}: {m}",
        )


Change = Callable[[Progress], None]


def walk(
    optimizer: Optimizer,
    dtype: torch.dtype,
    steps: int,
    changes: dict[int, Change] | None = None,
    **start: Any,
) -> list[Progress]:
    """Every eager progress; from each, one step is taken with both engines and compared.

    changes: what is done to the progress after so many steps, to lead both where they would seldom go.
    """
    eager, fused, progress = begin(optimizer, dtype, **start)
    seen = [progress]
    for step in range(steps):
        if changes and step in changes:
            progress = copy.deepcopy(progress)
            changes[step](progress)
        after = stepped(eager, progress)
        assert_same(after, stepped(fused, progress), TOLERANCE[dtype])
        progress = after
        seen.append(progress)
    return seen


def change_inner(**changed: Callable[[torch.Tensor], torch.Tensor]) -> Change:
    """Of the state of a local optimizer, which may be the inner one of a search."""

    def change(progress: Progress) -> None:
        state = progress.state
        inner = getattr(state, "inner", state)
        new = replace(inner, **{name: made(getattr(inner, name)) for name, made in changed.items()})
        progress.state = replace(state, inner=new) if inner is not state else new

    return change


BOTH = [torch.float64, torch.float32]


@pytest.mark.parametrize(
    "optimizer,dtype",
    [
        (GradientDescent(max_step=0.1), torch.float64),
        pytest.param(GradientDescent(max_step=0.1), torch.float32, marks=pytest.mark.slow),
        (Adam(), torch.float64),
        (Adam(beta2=0.9), torch.float32),
    ],
    ids=str,
)
def test_memoryless(optimizer: Optimizer, dtype: torch.dtype) -> None:
    walk(optimizer, dtype, 25)


@pytest.mark.parametrize("dtype", [pytest.param(BOTH[0], marks=pytest.mark.slow), BOTH[1]], ids=str)
def test_gradient_descent_without_cap_on_morse(dtype: torch.dtype) -> None:
    """In float32, too, where some processors only estimate the root that Morse takes."""
    walk(GradientDescent(step_size=2e-4), dtype, 25, potential=Morse(), fixed=2)


THERMAL = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
INTEGRATORS = [
    pytest.param(VelocityVerlet(time_step=0.01, initial_temperature=0.2).at(THERMAL), marks=pytest.mark.slow),
    Langevin(time_step=0.01, temperature=0.2, friction=2.0).at(THERMAL),
    pytest.param(
        Bussi(time_step=0.01, temperature=0.2, relaxation_time=0.05).at(THERMAL), marks=pytest.mark.slow
    ),
    NoseHoover(time_step=0.01, temperature=0.2, relaxation_time=0.05, chain=4).at(THERMAL),
]


@pytest.mark.parametrize("fixed", [0, 2])
@pytest.mark.parametrize("optimizer", INTEGRATORS, ids=lambda one: type(one).__name__)
def test_dynamics(optimizer: Optimizer, fixed: int) -> None:
    seen = walk(optimizer, torch.float64, 20, {0: settle}, fixed=fixed)
    speed = torch.stack([one.state.velocity.abs().sum() for one in seen])
    assert bool((speed > 0).all()) and bool((speed.diff().abs() > 0)[1:].all())
    heat = seen[-1].state.heat
    assert bool((heat == 0).all()) if isinstance(optimizer, VelocityVerlet) else bool((heat != 0).all())


@pytest.mark.slow
def test_dynamics_in_single_precision() -> None:
    walk(INTEGRATORS[1], torch.float32, 20, {0: settle})


@pytest.mark.slow
def test_dynamics_of_a_chain_of_one_thermostat() -> None:
    walk(
        NoseHoover(time_step=0.01, temperature=0.2, relaxation_time=0.05, chain=1),
        torch.float64,
        12,
        {0: settle},
    )


@pytest.mark.parametrize("max_step", [0.1, pytest.param(None, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "variant",
    ["ase", *(pytest.param(one, marks=pytest.mark.slow) for one in ("original", "2.0"))],
)
def test_fire(variant: str, max_step: float | None) -> None:
    check_fire(Fire(variant=variant, max_step=max_step, delay=3), torch.float64)


@pytest.mark.slow
def test_fire_in_single_precision() -> None:
    check_fire(Fire(delay=3), torch.float32)


def check_fire(optimizer: Fire, dtype: torch.dtype) -> None:
    """Downhill for long, then uphill."""
    turn = change_inner(velocity=lambda v: -v)
    seen = walk(optimizer, dtype, 40, {0: settle, 20: turn, 24: turn})
    downhill = torch.stack([one.state.downhill for one in seen])
    dt = torch.stack([one.state.dt for one in seen])
    assert bool((downhill.diff(dim=0) < 0).any()), "went uphill"
    assert bool((dt.diff(dim=0) > 0).any()) and bool((dt.diff(dim=0) < 0).any())


def settle(progress: Progress) -> None:
    """Atoms on a distorted grid: forces of order one."""
    number = torch.cat([torch.arange(n) for n in SIZES])
    grid = torch.stack([number % 2, number // 2 % 2, number // 4], -1).to(progress.x)
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(grid.shape, generator=generator, dtype=torch.float64).to(grid)
    progress.x = 1.05 * grid + 0.1 * noise


@pytest.mark.parametrize(
    "memory,dtype",
    [
        pytest.param(1, BOTH[0], marks=pytest.mark.slow),
        (8, BOTH[0]),
        pytest.param(20, BOTH[0], marks=pytest.mark.slow),
        pytest.param(8, BOTH[1], marks=pytest.mark.slow),
    ],
)
def test_lbfgs(memory: int, dtype: torch.dtype) -> None:
    """Longer than the memory; uphill until all is forgotten, for one system at a time."""

    def lower(energy: torch.Tensor) -> torch.Tensor:
        """As if the last point had been much better: each further one goes uphill."""
        return energy - 100.0 * torch.tensor([1.0, 0.0, 0.0, 1.0]).to(energy)

    uphill = change_inner(energy=lower, shrinks=torch.zeros_like)
    optimizer, changes = LBFGS(memory=memory), {25: uphill}
    if dtype == torch.float32:  # enormous forces would blow rounding up
        optimizer, changes[0] = LBFGS(memory=memory, rise=COARSE), settle
    seen = walk(optimizer, dtype, 45, changes)
    shrinks = torch.stack([one.state.shrinks for one in seen])
    assert shrinks[25 + 8].tolist()[::3] == [8, 8]
    assert (shrinks[25 + 9] == 0).tolist()[::3] == [True, True]
    memory_after = seen[25 + 9].state.yy.abs().sum((1, 2))
    assert (memory_after == 0).tolist()[::3] == [True, True], "forgotten"
    scale = torch.stack([one.state.scale for one in seen])
    assert memory == 1 or dtype == torch.float32 or bool((scale[1:] == 2.0 * scale[:-1]).any()), (
        "negative curvature"
    )


def test_lbfgs_turns_round_where_its_step_goes_uphill() -> None:
    def concave(sy: torch.Tensor) -> torch.Tensor:
        return -sy

    walk(LBFGS(), torch.float64, 14, {12: change_inner(along=concave, scale=lambda scale: -scale)})


def hopping(**settings: Any) -> BasinHopping:
    """Quenches are short and poor: many hops in few steps."""
    return BasinHopping(**{"quench_calls": 8, "quench_tolerance": 0.5} | settings)


def near_the_window(progress: Progress) -> None:
    """Two hops before an adaptation, which finds some acceptances too many and some too few."""
    state, many = progress.state, torch.tensor([40, 3, 41, 2])
    progress.state = replace(state, hops=torch.full_like(state.hops, 48), accepted=many)


def collide(progress: Progress) -> None:
    """Two atoms of the second system on one spot."""
    progress.x = progress.x.clone()
    progress.x[SIZES[0]] = progress.x[SIZES[0] + 1]


def check_hops(seen: list[Progress]) -> None:
    hops = torch.stack([one.state.hops for one in seen])
    assert int((hops[-1] - hops[0]).min()) >= 5
    assert bool((torch.stack([one.state.quench_calls for one in seen]) == 0).any())
    assert bool(seen[-1].tally.pool_energy.isfinite().any(1).all())


# in single precision slow: it compiles for as long again, and other tests compile single precision
@pytest.mark.parametrize(
    "dtype", [torch.float64, pytest.param(torch.float32, marks=pytest.mark.slow)], ids=["float64", "float32"]
)
def test_basin_hopping_as_it_comes(dtype: torch.dtype) -> None:
    optimizer = hopping(adapt_step=True, adapt_temperature=True, container=0.7, temperature=0.05)
    changes = {20: near_the_window, 70: collide}
    if dtype == torch.float32:
        optimizer, changes[0] = optimizer.replace(quench=LBFGS(rise=COARSE)), settle
    seen = walk(optimizer, dtype, 90, changes)
    check_hops(seen)
    state = seen[-1].state
    assert bool((state.scale > 1).any()) and bool((state.scale < 1).any()), "both ways"
    assert bool((state.temperature > 0.05).any()) and bool((state.temperature < 0.05).any())
    assert any(bool((one.state.inner.shrinks > 0).any()) for one in seen), "some step was taken back"
    rejected = [b.state.hops > a.state.hops for a, b in itertools.pairwise(seen)]
    same = [b.state.energy == a.state.energy for a, b in itertools.pairwise(seen)]
    assert any(bool((hop & old).any()) for hop, old in zip(rejected, same, strict=True)), (
        "some hop was rejected"
    )
    unsound = [one.tally.unsound_calls.tolist() for one in seen]
    assert [0, 1, 0, 0] in unsound


@pytest.mark.slow
def test_basin_hopping_with_fire_and_one_move_a_hop() -> None:
    moves = [
        Displacement(distribution="normal", probability=0.5, step=0.2),
        Angular(probability=0.7, threshold=0.8),
    ]
    check_hops(walk(hopping(quench=Fire(), container=None, moves=moves, combine="one"), torch.float64, 80))


@pytest.mark.slow
def test_basin_hopping_that_exchanges_atoms_some_of_which_are_fixed() -> None:
    optimizer = hopping(
        quench=GradientDescent(max_step=0.1),
        moves=[Exchange(pairs=2, probability=0.8), Displacement(step=0.1)],
        temperature=0.0,
        adapt_temperature=True,
    )
    seen = walk(optimizer, torch.float64, 80, fixed=1)
    check_hops(seen)
    first = clusters(torch.float64, 1).fixed
    assert bool(first.any()) and torch.equal(seen[-1].x[first], seen[0].x[first])


@pytest.mark.slow
def test_a_progress_goes_from_one_engine_to_the_other() -> None:
    """A few calls each in turn: the same random numbers and as many hops as by the eager engine alone."""
    eager, fused, progress = begin(hopping(), torch.float64)
    alone = copy.deepcopy(progress)
    for turn in range(60):
        progress = stepped((eager, fused)[turn // 7 % 2], progress)
        alone = stepped(eager, alone)
        assert torch.equal(progress.state.counter, alone.state.counter)
        assert torch.equal(progress.state.hops, alone.state.hops)
    torch.testing.assert_close(progress.tally.energy, alone.tally.energy, rtol=1e-6, atol=0.0)

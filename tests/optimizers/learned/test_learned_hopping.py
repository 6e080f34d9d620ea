"""Basin hopping with a learned hop: the same in both engines, in any batch, one network or many; what it chooses."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mlopt.core.atoms.systems import Systems
from mlopt.core.batch.random import problem_keys
from mlopt.core.driver.driver import Driver, minimize
from mlopt.core.driver.progress import Progress
from mlopt.core.driver.stop import Stop
from mlopt.core.errors import ConfigError, InputError
from mlopt.core.files.weights import TRAINING, save_weights
from mlopt.core.landscapes.evaluation import Evaluation
from mlopt.core.landscapes.landscape import AtomsLandscape
from mlopt.core.plugins.plugin import build
from mlopt.core.reporting.statistics import mean_calls_to_hit
from mlopt.core.testing import check_optimizer
from mlopt.core.testing.surfaces import quadratic
from mlopt.optimizers import LBFGS, Angular, BasinHopping, Displacement, SphereStart, Symmetrise
from mlopt.optimizers.fused import engine
from mlopt.optimizers.learned.hop.learnable import LearnedHop
from mlopt.optimizers.learned.hop.network import first_theta, quench_of, size_of
from mlopt.optimizers.learned.hop.optimizer import LearnedHopping, LearnedHoppingState
from mlopt.optimizers.learned.kernels import hop as kernels
from mlopt.optimizers.moves.basic import Restart
from mlopt.potentials import LennardJones

LJ = LennardJones()
SIZES = [5, 8, 8, 6]
EVEN = [1.0] * 6
#: hops are many where quenches are short and poor
POOR: dict[str, Any] = {"quench_calls": 8, "quench_tolerance": 0.5}


def landscape_of(sizes: list[int], kinds: int = 1, fixed: int = 0) -> AtomsLandscape:
    """Atoms of some kinds in turn; the first ``fixed`` of each cluster cannot move."""
    number = torch.cat([torch.arange(n) for n in sizes])
    z = torch.where(number % 3 < kinds - 1, 36, 18)
    pos, ptr = torch.zeros(len(number), 3, dtype=torch.float64), torch.tensor([0, *sizes]).cumsum(0)
    return AtomsLandscape(Systems(pos, z, ptr, fixed=number < fixed), LJ)


def begin(landscape: AtomsLandscape, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Random starts, and keys."""
    keys = problem_keys(seed, torch.arange(landscape.segments.n_problems))
    return SphereStart().sample(landscape.systems, landscape.diameter, keys), keys


def networks(count: int, seed: int = 1) -> torch.Tensor:
    """Of which each says something else about everything it looks at: (count, p)."""
    theta = torch.stack([first_theta(EVEN, seed + one) for one in range(count)])
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(theta[:, kernels.ATOM_HEAD :].shape, generator=generator, dtype=torch.float64)
    theta[:, kernels.ATOM_HEAD :] += 0.5 * noise
    return theta


def saying(**said: float) -> torch.Tensor:
    """A network that says the same whatever it sees. away: of all atoms. move: the only one that is chosen."""
    shares = [1e-300] * 6
    shares[int(said.get("move", 0))] = 1.0
    theta = first_theta(shares)
    theta[kernels.HEAD - 1] = said.get("away", 0.0)
    theta[-9] = said.get("heat", 0.0)
    theta[-2] = said.get("tolerance", 0.0)
    theta[-1] = said.get("widening", -100.0)
    return theta


def search_of(theta: torch.Tensor | None, **settings: Any) -> LearnedHopping:
    """Any shape of theta."""
    return LearnedHopping(**settings).replace(theta=theta)


# the contract


def atoms(sizes: list[int]) -> tuple[AtomsLandscape, torch.Tensor]:
    """For `check_optimizer`."""
    landscape = landscape_of(sizes, kinds=2)
    return landscape, begin(landscape)[0]


@pytest.mark.parametrize(
    "theta",
    [pytest.param(None, id="start", marks=pytest.mark.slow), pytest.param(networks(1)[0], id="random")],
)
def test_contract(theta: torch.Tensor | None) -> None:
    listed = None if theta is None else theta.tolist()
    check_optimizer(LearnedHopping(theta=listed, **POOR), surfaces={"atoms": atoms})


@pytest.mark.parametrize("name", ["eager", pytest.param("fused", marks=pytest.mark.slow)])
def test_a_population_fares_as_one_by_one(name: Any) -> None:
    """Bit for bit: each problem with its own network, and each alone with that network."""
    if name == "fused":
        pytest.importorskip("numba")
    landscape, theta = landscape_of(SIZES, kinds=2), networks(len(SIZES))
    x, keys = begin(landscape)
    whole = Driver(landscape, search_of(theta, **POOR), Stop(120), engine=name)
    together = whole.advance(whole.begin(x, keys)).outcome
    assert int(together.tally.quenches.min()) > 10
    for problem in range(len(SIZES)):
        index = torch.tensor([problem])
        _, rows = landscape.segments.select(index)
        alone = Driver(landscape.select(index), search_of(theta[problem], **POOR), Stop(120), engine=name)
        ended = alone.advance(alone.begin(x[rows], keys[index])).outcome
        assert torch.equal(ended.tally.x, together.tally.x[rows])
        assert torch.equal(ended.tally.pool_energy, together.tally.pool_energy[index])


# both engines


def assert_same(eager: Progress, fused: Progress) -> None:
    """Integers and booleans are equal, other numbers are close.

    Not which of two points is kept: where atoms have changed places their energies differ by rounding.
    """
    (ours, about), (theirs, about_theirs) = eager.to_checkpoint(), fused.to_checkpoint()
    assert about == about_theirs and list(ours) == list(theirs)
    for name, one in ours.items():
        if name in ("tally.x", "tally.force2", "tally.pool_x", "tally.pool_calls"):
            continue
        if not one.is_floating_point():
            assert torch.equal(one, theirs[name]), f"{name}: {one} {theirs[name]}"
            continue
        finite = one[one.isfinite()].abs()
        # differences of forces that nearly cancel magnify rounding, which depends on the versions of torch and LLVM
        scale = 1e-8 * (float(finite.max()) if finite.numel() else 0.0)
        torch.testing.assert_close(
            theirs[name], one, rtol=1e-8, atol=scale, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("fixed", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_fused_engine_takes_the_same_steps(fixed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From every progress of the eager engine one step by each; all moves are made, those that can do something."""
    pytest.importorskip("numba")
    monkeypatch.setattr(engine, "_FIRST_STEPS", 1)
    landscape = landscape_of(SIZES, kinds=2, fixed=fixed)
    optimizer = search_of(networks(len(SIZES)), horizon=100, container=0.7, **POOR)
    eager, fused = (Driver(landscape, optimizer, Stop(10_000), engine=name) for name in ("eager", "fused"))
    progress, chosen = eager.begin(*begin(landscape)), set[int]()
    for _ in range(50 if not fixed else 20):
        after, same = (one.advance(copy.deepcopy(progress), lambda: True) for one in (eager, fused))
        assert after.calls == progress.calls + 1
        assert_same(after, same)
        hopped = after.state.hops > progress.state.hops
        chosen |= set(after.state.choice[hopped].tolist())
        progress = after
    assert chosen == ({0, 1, 2, 3, 4, 5} if not fixed else {0, 4})
    state = progress.state
    assert bool((state.lowest > state.best).any()) or fixed, "some search began anew"
    assert bool((state.temperature.max() > 1.5 * state.temperature.min()).all())


# what it does


def test_says_nothing_and_is_basin_hopping() -> None:
    """From every state of basin hopping the same displacement, judged at the same temperature: bit for bit."""
    landscape = landscape_of(SIZES)
    plain = BasinHopping(moves=[Displacement(), Angular(threshold=1e-9)], **POOR)
    learned = search_of(saying(away=-100.0), **POOR)
    x, keys = begin(landscape)
    x = minimize(landscape, LBFGS(), x, force_calls=400, engine="eager").x  # no atom is loose
    state = plain.init(landscape, x, keys)
    own = {
        name: getattr(learned.init(landscape, x, keys), name)
        for name in "best lowest unit since calls choice".split()
    }
    hops = 0
    for _ in range(60):
        evaluation = landscape.evaluate(x)
        there, new = learned.step(landscape, x, evaluation, LearnedHoppingState(**vars(state), **own))
        x, state = plain.step(landscape, x, evaluation, state)
        assert torch.equal(there, x) and torch.equal(new.counter, state.counter)
        assert torch.equal(new.energy, state.energy) and torch.equal(new.accepted, state.accepted)
        hops = int(state.hops.sum())
    assert hops > 20


def test_where_training_starts_it_is_about_basin_hopping() -> None:
    """Calls to the first hit of LJ13."""
    pytest.importorskip("numba")
    found = []
    for optimizer in (LearnedHopping(), BasinHopping()):
        landscape = landscape_of([13] * 150)
        x, _ = begin(landscape)
        stop: dict[str, Any] = {"target": -44.326801, "on_target": "stop-start", "force_calls": 20_000}
        result = minimize(landscape, optimizer, x, **stop, engine="fused")
        hits = [hit if hit > 0 else None for hit in result.first_hit.tolist()]
        found.append(mean_calls_to_hit(hits, result.calls.tolist()).mean)
    # each is known to a twelfth; symmetrising, a rare move there, helps
    assert 0.4 < found[0] / found[1] < 1.5, found


def hop_once(theta: torch.Tensor, sizes: list[int], **settings: Any) -> tuple[Any, Any, AtomsLandscape]:
    """States before and after a hop from quenched minima, and where."""
    landscape = landscape_of(sizes)
    start, keys = begin(landscape)
    quenched = minimize(landscape, BasinHopping(), start, force_calls=400, engine="eager").x
    optimizer = search_of(theta, quench_calls=1, **settings)
    state = optimizer.init(landscape, quenched, keys)
    x, after = optimizer.step(landscape, quenched, landscape.evaluate(quenched), state)
    return (quenched, state), (x, after), landscape


def test_a_restart_forgets() -> None:
    (quenched, _), (x, after), landscape = hop_once(saying(move=5), [13] * 40)
    assert after.choice.tolist() == [5] * 40
    assert bool(after.energy.isinf().all()) and bool(after.lowest.isinf().all()) and not after.since.any()
    assert torch.equal(after.best, landscape.evaluate(quenched).energy)
    # uniform in the ball of a start: three quarters of the radius hold 27/64 of it
    away = torch.linalg.vector_norm(
        x.reshape(40, 13, 3) - quenched.reshape(40, 13, 3).mean(1, True), dim=-1
    ).flatten()
    radius = 1.0 + (13 * 3 / (4 * torch.pi * 2**0.5)) ** (1 / 3)
    assert float(away.max()) <= radius * (1 + 1e-12)
    assert abs(float((away < 0.75 * radius).double().mean()) - 27 / 64) < 4 * (0.25 / 520) ** 0.5
    # whatever comes next is accepted
    optimizer = search_of(saying(), quench_calls=1)
    _, next_one = optimizer.step(landscape, x, landscape.evaluate(x), after)
    assert bool(next_one.energy.isfinite().all()) and torch.equal(next_one.lowest, next_one.energy)


def test_restart_is_refused_nothing_and_leaves_periodic_systems() -> None:
    cell = torch.eye(3, dtype=torch.float64)[None] * 9.0
    caged = replace(Systems.cluster([18] * 4), cell=cell, pbc=torch.ones(1, 3, dtype=torch.bool))
    landscape = AtomsLandscape(caged, LennardJones(cutoff=3.0))
    x, keys = begin(landscape)
    state = BasinHopping(moves=[Restart()], quench_calls=1, temperature=1e9).init(landscape, x, keys)
    there, _ = BasinHopping(moves=[Restart()], quench_calls=1).step(
        landscape, x, landscape.evaluate(x), state
    )
    assert torch.equal(there, x)


def test_away_atoms_go_to_the_surface() -> None:
    (quenched, _), (x, _), _ = hop_once(saying(away=100.0), [13] * 3, container=None)
    moved, before = x.reshape(3, 13, 3), quenched.reshape(3, 13, 3)
    radii = torch.linalg.vector_norm(moved - moved.mean(1, True), dim=-1)
    assert not bool((moved == before).all(-1).any())
    # all on one sphere about the centre that the displaced cluster had, which is near
    assert float(radii.min()) > 0.5 * float(radii.max())


def test_a_new_lowest_minimum_is_noted_and_hops_since_are_counted() -> None:
    landscape = landscape_of([8] * 4)
    x, keys = begin(landscape)
    optimizer = search_of(saying(heat=4.0), **POOR)
    state = optimizer.init(landscape, x, keys)
    lowest, since = torch.full((4,), torch.inf, dtype=torch.float64), torch.zeros(4, dtype=torch.int64)
    for _ in range(120):
        evaluation, unit = landscape.evaluate(x), state.unit
        x, state = optimizer.step(landscape, x, evaluation, state)
        there = torch.where(state.arrived, state.found_energy, torch.inf)
        hopped = state.quench_calls == 0
        lower = there < lowest - 1e-3 * unit
        since = torch.where(hopped, torch.where(lower, 0, since + 1), since)
        lowest = torch.minimum(lowest, there)
        assert torch.equal(state.lowest, lowest) and torch.equal(state.best, lowest)
        assert torch.equal(state.since, since)
    assert state.calls.tolist() == [120] * 4 and int(since.max()) > 2


def test_a_quench_ends_early_where_it_is_high() -> None:
    landscape = landscape_of([5, 5, 5])
    x, keys = begin(landscape)
    optimizer = search_of(saying(tolerance=1.0, widening=0.0), quench_tolerance=0.1)
    state = replace(
        optimizer.init(landscape, x, keys),
        energy=torch.tensor([-9.0, -9.0, torch.inf], dtype=torch.float64),
        unit=torch.tensor([2.0, 2.0, 1.0], dtype=torch.float64),
    )
    energy = torch.tensor([-7.0, -9.5, -7.0], dtype=torch.float64)
    enough = optimizer.enough2(Evaluation(energy, x), state).sqrt()
    base = 0.1 * torch.tensor(1.0).double().exp()
    torch.testing.assert_close(enough, base * torch.tensor([4.0, 1.0, 1.0], dtype=torch.float64))


def test_temperature_is_in_units_of_the_binding() -> None:
    """The same cluster with energies of another size: the same search, at a temperature of that size."""
    temperatures = []
    for epsilon in (1.0, 7.0):
        landscape = AtomsLandscape(Systems.cluster([18] * 13), LennardJones(epsilon=epsilon))
        x, keys = begin(landscape)
        optimizer = search_of(networks(1)[0], quench_tolerance=1e-2 * epsilon, quench_calls=1)
        state = optimizer.init(landscape, x, keys)
        _, state = optimizer.step(landscape, x, landscape.evaluate(x), state)
        temperatures.append(float(state.temperature))
    assert temperatures[1] == pytest.approx(7.0 * temperatures[0], rel=1e-12)


# refusals


def test_theta_that_does_not_fit() -> None:
    short = first_theta(EVEN)[:-3].tolist()
    with pytest.raises(
        ConfigError, match=r"`theta` has 224 numbers, but a displacement and 5 moves .* need 227"
    ):
        build(LearnedHopping, {"theta": short})
    holed = first_theta(EVEN).tolist()
    holed[5] = float("nan")
    with pytest.raises(ConfigError, match="`theta` holds numbers that are not finite"):
        build(LearnedHopping, {"theta": holed})
    landscape = landscape_of([4, 4])
    x, keys = begin(landscape)
    for theta, message in (
        (networks(2) * float("inf"), "not finite"),
        (networks(3), r"must have shape \(p,\) or \(2, p\) for 2 problems, got \(3, 227\)"),
        (networks(2)[:, 1:], "has 226 numbers"),
    ):
        with pytest.raises(InputError, match=message):
            search_of(theta).init(landscape, x, keys)


def test_weights_in_a_file(tmp_path: Path) -> None:
    theta = networks(1)[0]
    training = dict.fromkeys(TRAINING, "a test")
    for name, one, optimizer in (
        ("sound", theta, "learned-hopping"),
        ("short", theta[1:], "learned-hopping"),
        ("foreign", theta, "learned"),
    ):
        save_weights(tmp_path / f"{name}.safetensors", one, optimizer, {}, training)
    search = build(LearnedHopping, {"weights": str(tmp_path / "sound.safetensors")})
    assert torch.equal(search.parameters, theta)
    assert torch.equal(LearnedHop(search=search).start(), theta)
    for settings, message in (
        ({"weights": str(tmp_path / "short.safetensors")}, r"`theta` has 226 numbers, but .* need 227"),
        ({"weights": str(tmp_path / "foreign.safetensors")}, "are for the optimizer 'learned', not for"),
        ({"weights": "no-such"}, "no weights are called 'no-such'"),
        ({"weights": str(tmp_path / "sound.safetensors"), "theta": theta.tolist()}, "not both"),
    ):
        with pytest.raises(ConfigError, match=message):
            build(LearnedHopping, settings)


def test_weights_bring_the_settings_of_their_training(tmp_path: Path) -> None:
    family = LearnedHop(search=LearnedHopping(moves=[Symmetrise()], quench_tolerance=0.03), shares=[0.2, 0.8])
    path = tmp_path / "trained.safetensors"
    family.write_weights(family.start(), path, dict.fromkeys(TRAINING, "a test"))
    search = build(LearnedHopping, {"weights": str(path), "horizon": 7_000})
    assert (search.quench_tolerance, search.horizon, len(search.moves)) == (0.03, 7_000, 1)
    assert torch.equal(search.parameters, family.start())
    again = build(LearnedHopping, search.config())  # as a resolved configuration is read
    assert again.config() == search.config()
    with pytest.raises(ConfigError, match=r"were trained with moves: \[symmetrise\], not \["):
        build(LearnedHopping, {"weights": str(path), "moves": ["twist"]})


def test_landscapes_that_tell_nothing_about_rows() -> None:
    landscape, x = quadratic([4, 5])
    with pytest.raises(
        InputError, match="looks at the energy of each atom, which this landscape does not tell"
    ):
        minimize(landscape, LearnedHopping(quench_calls=3), x, force_calls=10, engine="eager")


def test_theta_of_other_moves() -> None:
    one = LearnedHopping(moves=[Symmetrise()], theta=first_theta([0.2, 0.8]).tolist())
    assert one.parameters.shape == (size_of(2),) and one.replace(theta=None).parameters.shape == (size_of(2),)
    assert float(quench_of(one.parameters)[0]) == 1.0

"""Basin hopping: whom it accepts, what it survives, how it adapts, what it reports and that it finds."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from mlopt.core.atoms.systems import Systems
from mlopt.core.batch.random import Draws, problem_keys
from mlopt.core.batch.segments import Segments
from mlopt.core.driver.driver import minimize
from mlopt.core.driver.stop import Reason
from mlopt.core.errors import ConfigError
from mlopt.core.landscapes.evaluation import Evaluation
from mlopt.core.landscapes.landscape import AtomsLandscape, FunctionLandscape, Landscape
from mlopt.core.plugins.plugin import build
from mlopt.core.protocols.move import Move
from mlopt.core.testing.surfaces import Watched, lennard_jones
from mlopt.optimizers.local.gradient_descent import GradientDescent
from mlopt.optimizers.local.lbfgs import LBFGS
from mlopt.optimizers.moves.basic import Displacement, Exchange
from mlopt.optimizers.searches.basin_hopping import BasinHopping
from mlopt.optimizers.searches.hopping import HoppingState
from mlopt.optimizers.starts.starts import SphereStart
from mlopt.potentials.classical.lennard_jones import LennardJones

STILL = Displacement(probability=0.0)
#: the four minima of LJ7 (Hoare & McInnes, Faraday Discuss. 61, 12 (1976); digits from scipy's L-BFGS-B)
LJ7 = [-16.505384, -15.935043, -15.593211, -15.533060]


class Flip(Move):
    """Through the origin."""

    def propose(
        self,
        landscape: Landscape,
        x: torch.Tensor,
        row_energy: torch.Tensor | None,
        scale: torch.Tensor,
        draws: Draws,
    ) -> torch.Tensor:
        return -x


def two_levels(n: int, height: float) -> tuple[FunctionLandscape, torch.Tensor]:
    """Points at -1, of energy 0; the other side has ``height``. There is no force: each point is a minimum."""

    def energy(x: torch.Tensor, segments: Segments) -> torch.Tensor:
        return segments.sum(torch.where(x > 0, height, 0.0) + 0.0 * x)

    return FunctionLandscape(energy, Segments.uniform(n, 1)), torch.full((n, 1), -1.0, dtype=torch.float64)


def walk(
    optimizer: BasinHopping, landscape: Landscape, x: torch.Tensor, steps: int, seed: int = 0
) -> list[tuple[torch.Tensor, Evaluation, HoppingState]]:
    """Each point, its evaluation, and the state after the step from it."""
    state = optimizer.init(landscape, x, problem_keys(seed, torch.arange(landscape.segments.n_problems)))
    seen = []
    for _ in range(steps):
        found = landscape.evaluate(x)
        new_x, state = optimizer.step(landscape, x, found, state)
        seen.append((x, found, state))
        x = new_x
    return seen


@pytest.mark.parametrize("temperature,height", [(0.8, 0.4), (0.5, 1.0), (2.0, 0.1)])
def test_metropolis(temperature: float, height: float) -> None:
    n = 4000
    landscape, x = two_levels(n, height)
    seen = walk(BasinHopping(temperature=temperature, moves=[Flip()]), landscape, x, 40)
    chance = math.exp(-height / temperature)
    below = torch.stack([state.energy == 0.0 for _, _, state in seen])
    assert bool(below[0].all())  # the first minimum is always accepted
    proposed = tried = climbed = 0
    for before, after, (point, _, _) in zip(below, below[1:], seen[1:], strict=False):
        assert torch.equal(point[:, 0] > 0, before)  # proposed is the other side of the accepted point
        assert bool(after[~before].all())  # downhill always
        tried += int(before.sum())
        climbed += int((before & ~after).sum())
        proposed += n
    assert climbed / tried == pytest.approx(chance, abs=4 * math.sqrt(chance * (1 - chance) / tried))
    # detailed balance: the two levels are occupied as Boltzmann has it
    share = 1.0 - float(below[20:].double().mean())
    assert share == pytest.approx(chance / (1 + chance), abs=4 * math.sqrt(0.25 / (20 * n)) * 2)
    assert bool((seen[-1][2].hops == 40).all())


def test_at_zero_temperature_only_improvements_are_accepted() -> None:
    landscape, x = two_levels(200, 1e-12)
    seen = walk(BasinHopping(temperature=0.0, moves=[Flip()]), landscape, x, 10)
    assert all(bool((state.energy == 0.0).all()) and torch.equal(state.x, x) for _, _, state in seen)
    clusters, x = lennard_jones([7, 8, 13])
    cold = walk(BasinHopping(temperature=0.0), clusters, x, 500)
    energies = torch.stack([state.energy for _, _, state in cold])
    reached = torch.isfinite(energies).int().argmax(0)
    improved = []
    for problem in range(3):
        steps = energies[int(reached[problem]) :, problem].diff()
        assert bool((steps <= 0).all())
        improved.append(bool((steps < 0).any()))
    assert any(improved)
    warm = walk(BasinHopping(temperature=0.8), clusters, x, 500)
    energies = torch.stack([state.energy for _, _, state in warm])
    assert bool((energies[200:].diff(dim=0) > 0).any())  # which it would not, if it only went down


class Hiccup(Watched):
    """Energies, or only forces, are non-finite in some calls."""

    value, when, force_only = torch.nan, range(0), False

    def evaluate(self, x: torch.Tensor) -> Evaluation:
        found = super().evaluate(x)
        if self.calls[0] - 1 not in self.when:
            return found
        if self.force_only:
            return Evaluation(found.energy - 1e3, torch.full_like(found.force, self.value))
        return Evaluation(torch.full_like(found.energy, self.value), found.force)

    def select(self, problems: torch.Tensor) -> Watched:
        part = super().select(problems)
        part.__class__ = type(self)
        return part


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("force_only", [False, True])
def test_a_non_finite_quench_is_rejected_and_the_search_goes_on(value: float, force_only: bool) -> None:
    inner, x = lennard_jones([8])
    kind = type("Spoiled", (Hiccup,), {"value": value, "when": range(100, 104), "force_only": force_only})
    seen = walk(BasinHopping(), kind(inner), x, 260)
    good = seen[99][2]
    assert math.isfinite(float(good.energy)) and int(good.hops) >= 1
    for step in range(100, 104):
        state = seen[step][2]
        assert torch.equal(state.x, good.x) and torch.equal(state.energy, good.energy)
        assert int(state.hops) == int(good.hops) + step - 99 and not bool(state.arrived)
        assert torch.equal(state.inner.energy, torch.full_like(state.energy, torch.inf))  # a fresh quench
        assert int(state.quench_calls) == 0
    assert all(bool(torch.isfinite(point).all()) for point, _, _ in seen)
    last = seen[-1][2]
    assert int(last.hops) > int(good.hops) + 2 and math.isfinite(float(last.energy))
    assert torch.allclose(inner.evaluate(last.x).energy, last.energy)
    result = minimize(kind(inner), BasinHopping(), x, force_calls=150)
    assert result.reason == [Reason.BUDGET] and float(result.energy) > -1e3


def test_what_never_becomes_finite_again_is_given_up() -> None:
    landscape, x = lennard_jones([6, 7, 5])
    result = minimize(Watched(landscape, poison=(1, 100)), BasinHopping(), x, force_calls=300)
    assert result.reason == [Reason.BUDGET, Reason.NON_FINITE, Reason.BUDGET]
    assert int(result.calls[1]) == 109 and bool(torch.isfinite(result.energy).all())


def scattered(n: int = 13) -> tuple[Systems, torch.Tensor]:
    """Clusters of different sizes with some atoms far out."""
    systems = Systems.concatenate([Systems.cluster([18] * n), Systems.cluster([18] * 4)])
    keys = problem_keys(0, torch.arange(2))
    x = SphereStart().sample(systems, torch.full((n + 4,), 2.0, dtype=torch.float64), keys)
    x[0] = torch.tensor([40.0, -10.0, 3.0])
    x[n] = torch.tensor([0.0, 0.0, -500.0])
    return systems, x


def contained(landscape: Landscape, x: torch.Tensor, container: float | None = 1.3) -> torch.Tensor:
    """The point after a hop with moves that do nothing."""
    optimizer = BasinHopping(moves=[STILL], container=container, quench_tolerance=1e100)
    state = optimizer.init(landscape, x, problem_keys(0, torch.arange(landscape.segments.n_problems)))
    return optimizer.step(landscape, x, landscape.evaluate(x), state)[0]


def test_evaporated_atoms_are_pulled_back() -> None:
    systems, x = scattered()
    landscape = AtomsLandscape(systems, LennardJones(r0=2.0))
    back = contained(landscape, x)
    for rows, n in ((slice(0, 13), 13), (slice(13, 17), 4)):
        radius = 1.3 * 2.0 * (1.0 + (3 * n / (4 * math.pi * math.sqrt(2))) ** (1 / 3))
        centre = x[rows].mean(0)
        before = torch.linalg.vector_norm(x[rows] - centre, dim=-1)
        after = torch.linalg.vector_norm(back[rows] - centre, dim=-1)
        inside = before <= radius
        assert torch.equal(back[rows][inside], x[rows][inside])
        assert bool((~inside)[0]) and torch.allclose(
            after[~inside], torch.tensor(radius, dtype=torch.float64)
        )
        cosine = ((x[rows] - centre) * (back[rows] - centre)).sum(-1) / (before * after)
        assert float(cosine.min()) > 1 - 1e-12  # straight towards the centre
    assert torch.equal(contained(landscape, x, None), x)
    # in the end, such a cluster is whole again
    found = minimize(landscape, BasinHopping(), x, force_calls=600)
    assert float(found.energy[1]) == pytest.approx(-6.0, abs=1e-3)


def test_the_container_leaves_fixed_atoms_alone() -> None:
    systems, x = scattered()
    fixed = torch.zeros(17, dtype=torch.bool)
    fixed[[0, 5]] = True
    landscape = AtomsLandscape(replace(systems, fixed=fixed), LennardJones(r0=2.0))
    back = contained(landscape, x)
    assert torch.equal(back[fixed], x[fixed]) and not torch.equal(back[13], x[13])
    found = minimize(landscape, BasinHopping(), x, force_calls=400)
    assert torch.equal(found.x[fixed], x[fixed])
    met = torch.isfinite(found.pool_energy[0])
    assert bool(met.any()) and torch.equal(
        found.pool_x[fixed][:, met], x[fixed][:, None].expand(-1, int(met.sum()), -1)
    )


def test_the_container_is_for_free_clusters_in_any_batch() -> None:
    systems, x = scattered(4)
    caged = replace(
        systems[0], cell=torch.eye(3, dtype=torch.float64)[None] * 200, pbc=torch.ones(1, 3, dtype=torch.bool)
    )
    potential = LennardJones(r0=2.0, cutoff=6.0)
    mixed = AtomsLandscape(Systems.concatenate([caged, systems[1]]), potential)
    back = contained(mixed, x)
    assert torch.equal(back[:4], x[:4])
    alone = contained(AtomsLandscape(systems[1], potential), x[4:])
    assert torch.equal(back[4:], alone) and not torch.equal(alone, x[4:])


@pytest.mark.parametrize("accepts", [True, False])
def test_adaptation_goes_the_right_way(accepts: bool) -> None:
    # all levels equal: every hop is accepted; or the first point is the lowest of all: none is, after it
    landscape, x = two_levels(3, 0.0 if accepts else 1.0)
    still = BasinHopping(temperature=1e-9, moves=[Flip()])
    assert bool((walk(still, landscape, x, 120)[-1][2].scale == 1.0).all())
    sized = walk(still.replace(adapt_step=True), landscape, x, 160)
    factor = 1.05 if accepts else 1 / 1.05
    for step, (_, _, state) in enumerate(sized, start=1):
        expected = torch.full_like(state.scale, factor ** (step // 50))
        assert torch.allclose(state.scale, expected), step
        assert bool((state.temperature == 1e-9).all())
    heated = walk(still.replace(adapt_temperature=True), landscape, x, 160)[-1][2]
    assert torch.allclose(heated.temperature, torch.full_like(heated.temperature, 1e-9 / factor**3))
    assert bool((heated.scale == 1.0).all())


def test_adaptation_leads_to_the_wanted_acceptance() -> None:
    def energy(x: torch.Tensor, segments: Segments) -> torch.Tensor:
        return segments.sum(0.5 * x * x)

    class Levels(
        FunctionLandscape
    ):  # no force: every point counts as a minimum, so hops are a Monte Carlo walk
        def evaluate(self, x: torch.Tensor) -> Evaluation:
            return Evaluation(super().evaluate(x).energy, torch.zeros_like(x))

    landscape = Levels(energy, Segments.uniform(60, 1))
    x = torch.zeros(60, 3, dtype=torch.float64)
    for wanted in (0.3, 0.7):
        optimizer = BasinHopping(
            quench=GradientDescent(),
            temperature=0.01,
            moves=[Displacement(step=0.15)],
            acceptance=wanted,
            adapt_step=True,
        )
        seen = walk(optimizer, landscape, x, 1000)
        energies = torch.stack([state.energy for _, _, state in seen[700:]])
        share = float((energies.diff(dim=0) != 0).double().mean())
        assert share == pytest.approx(wanted, abs=0.05)


def test_a_quench_ends_at_its_cap() -> None:
    landscape, x = lennard_jones([5, 7])
    optimizer = BasinHopping(quench=GradientDescent(step_size=1e-5, max_step=0.001), quench_calls=7)
    seen = walk(optimizer, landscape, x, 49)
    hops = torch.stack([state.hops for _, _, state in seen])
    assert torch.equal(hops, torch.arange(1, 50)[:, None] // 7 * torch.ones(2, dtype=torch.int64))
    assert bool((hops.diff(dim=0) == torch.stack([s.arrived for _, _, s in seen])[1:].long()).all())
    assert bool(seen[6][2].arrived.all()) and torch.equal(seen[6][2].found_x, seen[6][0])
    assert bool(torch.stack([state.quench_calls for _, _, state in seen]).amax(0).eq(6).all())
    found = minimize(landscape, optimizer, x, force_calls=50)
    assert found.quenches.tolist() == [7, 7]


def test_what_is_found_are_minima() -> None:
    systems = Systems.cluster([18] * 7, 12)
    landscape = AtomsLandscape(systems, LennardJones())
    x = SphereStart().sample(systems, landscape.diameter, problem_keys(2, torch.arange(12)))
    optimizer = BasinHopping(quench_tolerance=1e-5)
    result = minimize(landscape, optimizer, x, force_calls=1500, keep=4)
    assert bool((result.quenches >= 5).all())
    met = set()
    for slot in range(4):
        there = landscape.evaluate(result.pool_x[:, slot])
        for problem in torch.nonzero(torch.isfinite(result.pool_energy[:, slot])).flatten().tolist():
            energy = float(result.pool_energy[problem, slot])
            assert float(there.energy[problem]) == energy
            force = there.force[7 * problem : 7 * problem + 7]
            assert float((force**2).mean().sqrt()) <= 1e-5
            known = min(LJ7, key=lambda e, energy=energy: abs(e - energy))  # type: ignore[misc]
            assert energy == pytest.approx(known, abs=2e-6)
            met.add(known)
            assert float(result.pool_calls[problem, slot]) <= 1500
    assert met == set(LJ7)


def test_what_is_found_is_said_once_and_at_once() -> None:
    landscape, x = lennard_jones([6, 4])
    optimizer = BasinHopping()
    for point, evaluation, state in walk(optimizer, landscape, x, 300):
        found = optimizer.found(state)
        mean2 = landscape.segments.dot(evaluation.force, evaluation.force) / (landscape.segments.counts * 3)
        assert torch.equal(found.mask, mean2 <= 1e-4)
        rows = landscape.segments.rows_of(found.mask)
        assert torch.equal(found.energy[found.mask], evaluation.energy[found.mask])
        assert torch.equal(found.x[rows], point[rows])


def test_lj13_is_found_from_every_start() -> None:
    systems = Systems.cluster([18] * 13, 20)
    landscape = AtomsLandscape(systems, LennardJones())
    x = SphereStart().sample(systems, landscape.diameter, problem_keys(0, torch.arange(20)))
    result = minimize(
        landscape, BasinHopping(), x, force_calls=5000, target=-44.326801, on_target="stop-start"
    )
    assert result.reason == [Reason.TARGET] * 20
    assert bool((result.first_hit <= 5000).all()) and float(result.energy.max()) < -44.3258


def test_exchanges_sort_what_displacements_cannot() -> None:
    # unlike rows in wells of equal depth, 1 apart; the field pulls the heavier ones down harder
    class Wells(FunctionLandscape):
        def select(self, problems: torch.Tensor) -> Wells:
            segments, _ = self.segments.select(problems)
            return wells(segments.n_problems)

    def wells(n: int) -> Wells:
        species = torch.tensor([1, 1, 1, 2, 2, 2]).repeat(n)

        def energy(x: torch.Tensor, segments: Segments) -> torch.Tensor:
            field = 0.1 * species[:, None] * x
            return segments.sum(5.0 * (1.0 - torch.cos(2 * torch.pi * x)) + field)

        made = Wells(energy, Segments.uniform(n, 6))
        made.species = species
        return made

    x = torch.arange(6, dtype=torch.float64).repeat(5)[:, None]
    lowest = 0.1 * (2 * (0 + 1 + 2) + (3 + 4 + 5))
    small = Displacement(step=0.05)
    without = minimize(wells(5), BasinHopping(moves=[small], temperature=0.1), x, force_calls=400)
    with_it = minimize(wells(5), BasinHopping(moves=[small, Exchange()], temperature=0.1), x, force_calls=400)
    assert bool((with_it.energy < lowest + 0.01).all()), with_it.energy
    assert bool((without.energy > lowest + 0.85).all()), without.energy


@pytest.mark.parametrize(
    "settings,message",
    [
        ({"temperature": -0.1}, "temperature: input should be greater than or equal to 0 (got -0.1)"),
        ({"moves": []}, "moves: list should have at least 1 item after validation, not 0"),
        (
            {"moves": [{"name": "displacement", "steps": 1.0}]},
            "moves.0.steps: unknown key 'steps' in moves.0",
        ),
        (
            {"moves": ["jump"]},
            "moves.0: no move is called 'jump'. Installed: angular, displacement, exchange",
        ),
        (
            {"quench": "basin-hopping"},
            "is a search, which does not end at a minimum; take a local optimizer such as lbfgs",
        ),
        ({"acceptance": 1.0}, "acceptance: input should be less than 1 (got 1.0)"),
        ({"quench_calls": 0}, "quench_calls: input should be greater than or equal to 1 (got 0)"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(BasinHopping, settings)
    assert message in str(caught.value)


def test_quench_settings_arrive() -> None:
    made = build(BasinHopping, {"quench": {"name": "lbfgs", "memory": 3}, "moves": ["exchange"]})
    assert made.quench == LBFGS(memory=3) and made.moves == [Exchange()]
    landscape, x = lennard_jones([4])
    state = made.init(landscape, x, problem_keys(0, torch.arange(1)))
    assert state.inner.history.shape == (6, 4, 3)
    assert float(state.temperature) == 0.8

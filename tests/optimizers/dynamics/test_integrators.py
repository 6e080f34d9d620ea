"""Integrators against ASE, conservation laws, reversibility, and runs in pieces."""

from __future__ import annotations

import math
from dataclasses import replace

import ase.units
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.constraints import FixAtoms
from ase.md.nose_hoover_chain import NoseHooverChainNVT
from ase.md.verlet import VelocityVerlet as AseVerlet

from mlopt.core.atoms.systems import Systems
from mlopt.core.batch.random import problem_keys
from mlopt.core.batch.segments import Segments
from mlopt.core.driver.driver import Driver, minimize
from mlopt.core.driver.progress import Progress
from mlopt.core.driver.stop import Stop
from mlopt.core.errors import ConfigError, InputError
from mlopt.core.landscapes.landscape import AtomsLandscape, FunctionLandscape, Landscape
from mlopt.core.plugins.plugin import build
from mlopt.core.protocols.optimizer import local_only
from mlopt.optimizers.dynamics import (
    Bussi,
    Integrator,
    Langevin,
    NoseHoover,
    VelocityVerlet,
    kinetic_energy,
    temperature,
)
from mlopt.optimizers.dynamics.mechanics import conserved_motions
from mlopt.potentials import LennardJones, MloptCalculator, StillingerWeber

INTEGRATORS: dict[str, Integrator] = {
    "velocity-verlet": VelocityVerlet(time_step=1.0, initial_temperature=600.0),
    "langevin": Langevin(time_step=1.0, temperature=600.0, friction=0.01),
    "bussi": Bussi(time_step=1.0, temperature=600.0, relaxation_time=50.0),
    "nose-hoover": NoseHoover(time_step=1.0, temperature=600.0, relaxation_time=50.0),
}
CONSERVING = [name for name in INTEGRATORS if name != "langevin"]


def silicon(*, fixed: bool = False) -> Atoms:
    """A slab of silicon in a skewed cell that is periodic along two vectors, with two isotopes, and rattled."""
    atoms = bulk("Si", "diamond", a=5.43) * (2, 2, 2)
    atoms.set_cell(atoms.cell[:] + np.array([[0, 0, 0], [0.4, 0, 0], [0.3, -0.2, 0]]), scale_atoms=True)
    atoms.pbc = (True, True, False)
    atoms.set_masses([30.0 if i % 3 else 27.98 for i in range(len(atoms))])
    atoms.rattle(0.05, seed=3)
    if fixed:
        atoms.set_constraint(FixAtoms([0, 5]))
    return atoms


def cluster(n: int = 7) -> Atoms:
    """A free cluster of argon with two isotopes."""
    places = [[i % 2, i // 2 % 2, i // 4] for i in range(n)]
    atoms = Atoms("Ar" * n, 3.82 * torch.tensor(places, dtype=torch.float64).numpy())
    atoms.set_masses([36.0 if i == 2 else 40.0 for i in range(n)])
    return atoms


ARGON = LennardJones(epsilon=0.0104, r0=3.82)


def landscape_of(*images: Atoms) -> AtomsLandscape:
    return AtomsLandscape(Systems.from_atoms(list(images)), StillingerWeber())


def run(
    landscape: Landscape, integrator: Integrator, x: torch.Tensor, steps: int, seed: int = 0
) -> tuple[Driver, Progress]:
    driver = Driver(landscape, integrator, Stop(force_calls=steps + 1))
    key = problem_keys(seed, torch.arange(landscape.segments.n_problems))
    return driver, driver.advance(driver.begin(x, key), until=steps)


def frames(
    landscape: Landscape, integrator: Integrator, x: torch.Tensor, steps: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Total and conserved energies of each problem at each of ``steps`` points: (steps, n) each."""
    state = integrator.init(landscape, x, problem_keys(0, torch.arange(landscape.segments.n_problems)))
    total, conserved = [], []
    for _ in range(steps):
        evaluation = landscape.evaluate(x)
        x, state = integrator.step(landscape, x, evaluation, state)
        total.append(evaluation.energy + kinetic_energy(landscape, state.velocity))
        conserved.append(state.conserved)
    return torch.stack(total), torch.stack(conserved)


@pytest.mark.parametrize("fixed", [False, True])
def test_velocity_verlet_is_that_of_ase(fixed: bool) -> None:
    atoms = silicon(fixed=fixed)
    landscape, steps = landscape_of(atoms), 200
    verlet = VelocityVerlet(time_step=1.5, initial_temperature=900.0)
    driver = Driver(landscape, verlet, Stop(force_calls=steps + 1))
    progress = driver.begin(landscape.systems.pos, problem_keys(1, torch.arange(1)))
    # ASE's unit of time is sqrt(u / eV) angstrom; its constants are of another year, so the ratio is taken from here
    unit = math.sqrt(float(landscape.inertia[1]) / 30.0)
    assert 1.0 / unit == pytest.approx(ase.units.fs, rel=1e-7)
    atoms.set_velocities(progress.state.velocity.numpy() * unit)
    atoms.calc = MloptCalculator(StillingerWeber())
    AseVerlet(atoms, 1.5 / unit).run(steps)
    progress = driver.advance(progress)
    assert float((progress.outcome.tally.x - torch.tensor(atoms.positions)).abs().max()) < 1e-9
    # the evaluation of the last point ends the run: the velocity is that of the point before
    driver = Driver(landscape, verlet, Stop(force_calls=steps + 9))
    progress = driver.advance(
        driver.begin(landscape.systems.pos, problem_keys(1, torch.arange(1))), until=201
    )
    assert torch.equal(progress.tally.x, driver.result(progress).x)
    assert float((progress.state.velocity * unit - torch.tensor(atoms.get_velocities())).abs().max()) < 1e-9
    assert float(kinetic_energy(landscape, progress.state.velocity)) == pytest.approx(
        atoms.get_kinetic_energy(), abs=1e-8
    )
    assert float(temperature(landscape, progress.state.velocity, progress.state.freedom)) == pytest.approx(
        atoms.get_temperature() * (1.0 if fixed else 16 / 15), rel=1e-6
    )


def test_nose_hoover_chains_are_those_of_ase() -> None:
    """In a trap, where ASE's count of degrees of freedom, 3 N, is right."""

    def energy(x: torch.Tensor, segments: Segments) -> torch.Tensor:
        return segments.sum(0.05 * x**4 + x * x * torch.tensor([0.5, 1.0, 1.5], dtype=x.dtype))

    landscape = FunctionLandscape(energy, Segments.uniform(1, 4))
    x = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(4, 3)
    atoms = Atoms("H4", x.numpy())
    atoms.set_masses([1.0] * 4)

    class Trap(MloptCalculator):
        def calculate(self, atoms: Atoms = None, *args: object) -> None:  # type: ignore[override]
            found = landscape.evaluate(torch.tensor(atoms.positions))
            self.results = {"energy": float(found.energy), "forces": found.force.numpy()}

    atoms.calc = Trap(LennardJones())
    chains = NoseHoover(time_step=0.05, temperature=0.7, relaxation_time=1.0)
    _, progress = run(landscape, chains, x, 0)
    atoms.set_velocities(progress.state.velocity.numpy())
    other = NoseHooverChainNVT(atoms, 0.05, temperature_K=0.7 / ase.units.kB, tdamp=1.0)
    other.run(200)
    progress = Driver(landscape, chains, Stop(force_calls=300)).advance(progress, until=201)
    assert float((progress.tally.x - torch.tensor(atoms.positions)).abs().max()) < 1e-9
    assert float((progress.state.velocity - torch.tensor(atoms.get_velocities())).abs().max()) < 1e-9


def test_velocity_verlet_is_reversible() -> None:
    landscape = landscape_of(silicon())
    verlet, steps = INTEGRATORS["velocity-verlet"], 100
    key = problem_keys(0, torch.arange(1))
    x = start = landscape.systems.pos
    state = verlet.init(landscape, x, key)
    first = state.velocity
    for _ in range(steps + 1):
        last = x
        x, state = verlet.step(landscape, x, landscape.evaluate(x), state)
    x, state = last, verlet.init(landscape, x, key).moving(-state.velocity)
    for _ in range(steps + 1):
        last = x
        x, state = verlet.step(landscape, x, landscape.evaluate(x), state)
    assert float((last - start).abs().max()) < 1e-10
    assert float((state.velocity + first).abs().max()) < 1e-12


@pytest.mark.parametrize("name", ["velocity-verlet", "nose-hoover"])
def test_energy_is_conserved_to_second_order(name: str) -> None:
    """Half the time step, a quarter of the error; with a thermostat, of the energy less its heat."""
    landscape = landscape_of(silicon(), silicon(fixed=True))
    errors = []
    for time_step, steps in ((2.0, 100), (1.0, 200)):
        integrator = INTEGRATORS[name].replace(time_step=time_step)
        _, conserved = frames(landscape, integrator, landscape.systems.pos, steps)
        errors.append(conserved.std(0))
    for coarse, fine in zip(*errors, strict=True):
        assert 3.0 < float(coarse / fine) < 5.0


@pytest.mark.parametrize("name", ["langevin", "bussi", "nose-hoover"])
def test_heat_of_the_thermostat_is_all_that_the_energy_gains(name: str) -> None:
    landscape = landscape_of(silicon(), silicon(fixed=True))
    integrator = INTEGRATORS[name].replace(time_step=0.5)
    total, conserved = frames(landscape, integrator, landscape.systems.pos, 200)
    assert float(total.std(0).min()) > 0.05
    assert float((conserved.std(0) / total.std(0)).max()) < 0.02


@pytest.mark.parametrize("name", CONSERVING)
@pytest.mark.parametrize("rotation", [False, True])
def test_momenta_are_conserved(name: str, rotation: bool) -> None:
    systems = Systems.from_atoms([cluster(), cluster(5)])
    landscape = AtomsLandscape(systems, ARGON)
    integrator = INTEGRATORS[name].replace(initial_temperature=0.002, time_step=5.0, zero_rotation=rotation)
    if name != "velocity-verlet":
        integrator = integrator.replace(temperature=0.002)
    _, progress = run(landscape, integrator, systems.pos, 100)
    state, mass = progress.state, landscape.inertia[:, None]
    assert state.freedom.tolist() == [21 - (6 if rotation else 3), 15 - (6 if rotation else 3)]
    assert float(kinetic_energy(landscape, state.velocity).min()) > 1e-3
    motions = conserved_motions(landscape, progress.tally.x, rotation=True)
    momenta = torch.stack([systems.segments.dot(one, mass * state.velocity) for one in motions])
    assert float(momenta[:3].abs().max()) < 1e-12
    assert (float(momenta[3:].abs().max()) < 1e-12) == rotation


@pytest.mark.parametrize("name", INTEGRATORS)
def test_batch_equals_loop_and_pieces_equal_the_whole(name: str) -> None:
    """Bit for bit, with several sizes, fixed atoms, isotopes, a skewed cell, and settings of each problem."""
    images = [silicon(), silicon(fixed=True), silicon()[:9], silicon()]
    landscape, steps = landscape_of(*images), 30
    n = landscape.segments.n_problems
    settings = {"time_step": torch.tensor([1.0, 0.5, 1.5, 1.0], dtype=torch.float64)}
    kind = "initial_temperature" if name == "velocity-verlet" else "temperature"
    settings[kind] = torch.tensor([300.0, 600.0, 100.0, 900.0], dtype=torch.float64)
    integrator = INTEGRATORS[name].replace(**settings)
    x, keys = landscape.systems.pos, problem_keys(0, torch.arange(n))
    driver, progress = run(landscape, integrator, x, steps)
    for i in range(n):
        index = torch.tensor([i])
        rows = landscape.segments.select(index)[1]
        alone = Driver(landscape.select(index), integrator.select(index), Stop(force_calls=steps + 1))
        found = alone.advance(alone.begin(x[rows], keys[index]), until=steps)
        assert torch.equal(found.x, progress.x[rows]), f"problem {i}"
        for one, tensor in found.state.tensors().items():
            whole = progress.state.select(index, rows).tensors()[one]
            assert torch.equal(tensor, whole), f"problem {i}: {one}"
    held = landscape.systems.fixed
    assert torch.equal(progress.x[held], x[held])
    assert not bool(progress.state.velocity[held].any())
    assert progress.state.freedom.tolist() == (
        [48.0, 42.0, 27.0, 48.0] if name == "langevin" else [45.0, 42.0, 24.0, 45.0]
    )
    half = driver.advance(driver.begin(x, keys), until=13)
    again = driver.begin(x, keys)
    again.load_checkpoint(*half.to_checkpoint())
    again = driver.advance(again, until=steps)
    assert torch.equal(again.x, progress.x)
    assert torch.equal(again.state.velocity, progress.state.velocity)


def test_walkers_differ_and_masses_matter() -> None:
    """Copies draw other velocities. A heavier isotope is slower by the root of its mass."""
    light, heavy = cluster(), cluster()
    heavy.set_masses([160.0] * len(heavy))
    light.set_masses([40.0] * len(light))
    systems = Systems.from_atoms([light, heavy, light])
    landscape = AtomsLandscape(systems, ARGON)
    key = problem_keys(0, torch.tensor([0, 0, 1]))
    state = INTEGRATORS["velocity-verlet"].init(landscape, systems.pos, key)
    first, second, third = state.velocity.reshape(3, 7, 3)
    torch.testing.assert_close(first, 2.0 * second)
    assert float((first - third).abs().min()) > 0


def test_in_reduced_units_masses_are_one() -> None:
    """An element is a label there, unless the structure gives masses."""
    atoms = Atoms("Ar3", [[0, 0, 0], [1, 0, 0], [0, 1, 0]])
    labels = AtomsLandscape(Systems.from_atoms(atoms), LennardJones())
    assert labels.boltzmann == 1.0
    assert labels.inertia.tolist() == [1.0, 1.0, 1.0]
    atoms.set_masses([2.0, None, None])
    given = AtomsLandscape(Systems.from_atoms(atoms), LennardJones())
    assert given.inertia.tolist()[:1] == [2.0]
    kelvin = AtomsLandscape(Systems.from_atoms(atoms), StillingerWeber())
    assert kelvin.boltzmann == pytest.approx(ase.units.kB, rel=1e-6)


def test_a_single_atom_and_an_empty_batch() -> None:
    """A free atom has no thermal motion once its momentum is gone, and nothing divides by that."""
    for integrator in (one.replace(time_step=0.01) for one in INTEGRATORS.values()):
        systems = Systems.from_atoms([Atoms("Ar")])
        landscape = AtomsLandscape(systems, ARGON)
        _, progress = run(landscape, integrator, systems.pos, 5)
        assert bool(torch.isfinite(progress.state.velocity).all())
        assert bool(torch.isfinite(progress.x).all())
        assert float(progress.state.freedom) == (3.0 if isinstance(integrator, Langevin) else 0.0)
        none = landscape.select(torch.zeros(0, dtype=torch.int64))
        empty = minimize(none, integrator, systems.pos[:0], force_calls=3)
        assert len(empty) == 0


def test_what_is_refused() -> None:
    landscape = landscape_of(silicon())
    with pytest.raises(
        InputError, match="`fmax` cannot end VelocityVerlet: dynamics pass points without force"
    ):
        minimize(landscape, INTEGRATORS["velocity-verlet"], landscape.systems.pos, fmax=0.1)
    with pytest.raises(
        ValueError, match="Langevin follows dynamics and ends at no minimum; take lbfgs or fire"
    ):
        local_only(INTEGRATORS["langevin"])
    with pytest.raises(ConfigError, match="time_step: input should be greater than 0"):
        build(Langevin, {"time_step": -1.0, "temperature": 300.0, "friction": 0.1})
    with pytest.raises(ConfigError, match=r"unknown key 'temperature' in the top level\. Did you mean"):
        build(VelocityVerlet, {"time_step": 1.0, "temperature": 300.0})
    with pytest.raises(ConfigError, match="zero_rotation: langevin conserves no angular momentum"):
        build(Langevin, {"time_step": 1.0, "temperature": 300.0, "friction": 0.1, "zero_rotation": True})
    with pytest.raises(ConfigError, match="friction: this setting is required"):
        build(Langevin, {"time_step": 1.0, "temperature": 300.0})


def test_the_state_moves_as_it_is_told() -> None:
    landscape = landscape_of(silicon())
    verlet, x = INTEGRATORS["velocity-verlet"], landscape.systems.pos
    state = verlet.init(landscape, x, problem_keys(0, torch.arange(1)))
    told = state.moving(torch.full_like(x, 0.01))
    moved, after = verlet.step(landscape, x, replace(landscape.evaluate(x), force=torch.zeros_like(x)), told)
    assert torch.equal(after.velocity, torch.full_like(x, 0.01))
    torch.testing.assert_close(moved, x + 0.01)

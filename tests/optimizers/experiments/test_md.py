"""The experiment `md`: trajectories, averages, walkers that fail, refusals."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import ase.units
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.io import read, write

from mlopt.core.atoms.systems import Systems
from mlopt.core.atoms.units import Units
from mlopt.core.driver.stop import Reason
from mlopt.core.errors import CheckpointError, ConfigError, InputError
from mlopt.core.landscapes.potential import Potential
from mlopt.core.runs.config import load_experiment
from mlopt.core.runs.experiment import Preempted
from mlopt.core.structures.spec import SystemSpec
from mlopt.core.testing.recorder import FolderRecorder
from mlopt.optimizers.dynamics import Bussi, Langevin, VelocityVerlet
from mlopt.optimizers.experiments.md import MdResult, MolecularDynamics, pictures
from mlopt.optimizers.experiments.search.experiment import Search
from mlopt.optimizers.experiments.search.polish import Polish
from mlopt.potentials import LennardJones, StillingerWeber


@pytest.fixture
def silicon(tmp_path: Path) -> SystemSpec:
    atoms = bulk("Si", cubic=True)
    atoms.set_masses([28.0, 30.0] * 4)
    write(tmp_path / "si.extxyz", atoms)
    return SystemSpec(file=str(tmp_path / "si.extxyz"))


def dynamics(system: SystemSpec, **settings: Any) -> MolecularDynamics:
    given: dict[str, Any] = {
        "potential": StillingerWeber(),
        "integrator": Bussi(time_step=1.0, temperature=300.0, relaxation_time=20.0),
        "steps": 25,
    }
    return MolecularDynamics(system=system, **(given | settings))


def run(experiment: MolecularDynamics, folder: Path, **limits: Any) -> MdResult:
    experiment.check()
    return experiment.run(FolderRecorder(folder, **limits))


def test_trajectories_energies_and_averages(silicon: SystemSpec, tmp_path: Path) -> None:
    found = run(dynamics(silicon, walkers=2, temperatures=[300.0, 900.0]), tmp_path / "run")
    results = tmp_path / "run" / "results"
    assert found.steps.tolist() == [0, 10, 20, 25]  # the last step is a frame
    assert found.series.shape == (4, 4, 4) and bool(torch.isfinite(found.series).all())
    assert found.reasons == [Reason.BUDGET] * 4 and found.lived.tolist() == [25] * 4
    rows = list(csv.DictReader((results / "observables.csv").read_text().splitlines()))
    assert len(rows) == 16
    for walker in range(4):
        frames = read(results / f"walker-{walker:04d}.extxyz", ":")
        own = [row for row in rows if int(row["walker"]) == walker]
        assert [one.info["step"] for one in frames] == [int(row["step"]) for row in own] == [0, 10, 20, 25]
        for frame, row in zip(frames, own, strict=True):
            assert frame.get_masses().tolist() == [28.0, 30.0] * 4
            assert frame.get_kinetic_energy() == pytest.approx(float(row["kinetic"]), rel=1e-5)
            assert frame.get_temperature() * 8 / 7 == pytest.approx(float(row["temperature"]), rel=1e-5)
            assert frame.get_potential_energy() == pytest.approx(float(row["potential"]), abs=1e-6)
            assert float(row["time"]) == 1.0 * float(row["step"])
            systems = Systems.from_atoms(frame)
            assert float(StillingerWeber().evaluate(systems).energy) == pytest.approx(
                float(row["potential"]), abs=1e-5
            )
    table = json.loads((results / "walkers.json").read_text())
    assert [row["set_temperature"] for row in table] == [300.0, 300.0, 900.0, 900.0]
    first = found.series[:, :, 2]
    assert not bool((first[0, 1:] == first[0, 0]).any()), "walkers are alike"
    assert table[3]["temperature"] == pytest.approx(float(first[:, 3].mean()))
    assert "4 walkers, 25 steps, mean temperature" in found.summary().headline


def test_momenta_are_those_of_ase(silicon: SystemSpec, tmp_path: Path) -> None:
    """A trajectory's frame, continued by hand for a step of 1 fs, moves by its velocities."""
    verlet = VelocityVerlet(time_step=0.01, initial_temperature=300.0)
    run(dynamics(silicon, integrator=verlet, steps=1, every=1), tmp_path / "run")
    before, after = read(tmp_path / "run" / "results" / "walker-0000.extxyz", ":")
    moved = (after.positions - before.positions) / (0.01 * ase.units.fs)
    # coordinates have 8 decimals
    np.testing.assert_allclose(moved, before.get_velocities(), atol=2e-8 / (0.01 * ase.units.fs))


def test_averages_leave_equilibration_out(silicon: SystemSpec, tmp_path: Path) -> None:
    found = run(dynamics(silicon, equilibration=15), tmp_path / "run")
    assert found.table()[0]["temperature"] == pytest.approx(float(found.series[2:, 0, 2].mean()))
    assert found.mean_temperature == pytest.approx(float(found.series[2:, :, 2].mean()))


def test_a_free_cluster_is_relaxed_first_in_reduced_units(tmp_path: Path) -> None:
    langevin = Langevin(time_step=0.005, temperature=0.05, friction=0.5)
    found = run(
        dynamics(
            SystemSpec(cluster="Ar7"), potential=LennardJones(), integrator=langevin, relax=Polish(fmax=1e-3)
        ),
        tmp_path / "run",
    )
    assert float(found.series[0, 0, 0]) < -12.0
    assert found.force_calls > 27
    (last,) = read(tmp_path / "run" / "results" / "walker-0000.extxyz", "-1:")
    speed2 = (last.arrays["velocities"] ** 2).sum()
    assert 0.5 * speed2 == pytest.approx(float(found.series[-1, 0, 1]), rel=1e-5)


def test_what_fails_ends_with_a_reason_and_the_others_go_on(tmp_path: Path) -> None:
    """Two hot atoms of a gas meet in some walkers, not in all; a time step that is far too long explodes."""
    atoms = Atoms("Ar8", [[i % 2, i // 2 % 2, i // 4] for i in range(8)], cell=[2, 2, 2.2], pbc=True)
    write(tmp_path / "gas.extxyz", atoms)
    system = SystemSpec(file=str(tmp_path / "gas.extxyz"))
    settings: dict[str, Any] = {"potential": LennardJones(cutoff=1.3), "walkers": 6, "every": 5}
    verlet = VelocityVerlet(time_step=0.01, initial_temperature=2.0)
    met = run(
        dynamics(system, integrator=verlet, steps=60, min_distance=0.85, **settings), tmp_path / "contact"
    )
    assert 0 < sum(met.failed) < 6, "some walkers fail, and some do not"
    for walker, reason in enumerate(met.reasons):
        frames = read(tmp_path / "contact" / "results" / f"walker-{walker:04d}.extxyz", ":")
        near = [min(one.get_all_distances(mic=True)[np.triu_indices(8, 1)]) for one in frames]
        assert frames[-1].info["step"] == int(met.lived[walker])
        assert min(near[:-1]) >= 0.85
        assert (near[-1] < 0.85) == (reason is Reason.CONTACT)
    failed = sum(met.failed)
    assert f"{failed} failed" in met.summary().headline
    assert "two atoms came closer than the shortest distance allowed" in met.warnings[0]
    assert not met.summary().failure

    long = VelocityVerlet(time_step=0.3, initial_temperature=2.0)
    burst = run(dynamics(system, integrator=long, steps=60, **settings), tmp_path / "burst")
    assert all(burst.failed) and set(burst.reasons) <= {Reason.EXPLODED, Reason.NON_FINITE}
    assert Reason.EXPLODED in burst.reasons
    assert "the time step is too long" in burst.summary().failure


class Cliff(Potential):
    """A spring to the origin, with an energy that is NaN beyond x = 1."""

    units = "reduced"  # type: ignore[assignment]

    def energy(self, systems: Systems) -> torch.Tensor:
        spring = systems.segments.sum(0.5 * systems.pos**2)
        beyond = systems.segments.max(systems.pos[:, :1]) > 1.0
        return spring.masked_fill(beyond, torch.nan)


def test_a_walker_that_becomes_non_finite_has_failed(tmp_path: Path) -> None:
    write(tmp_path / "one.extxyz", Atoms("Ar2", [[0, 0, 0], [0, 0.5, 0]]))
    system = SystemSpec(file=str(tmp_path / "one.extxyz"))
    langevin = Langevin(time_step=0.1, temperature=0.3, friction=0.3)
    found = run(
        dynamics(system, potential=Cliff(), integrator=langevin, walkers=6, steps=60), tmp_path / "run"
    )
    assert 0 < sum(found.failed) < 6
    for walker, reason in enumerate(found.reasons):
        assert reason in (Reason.NON_FINITE, Reason.BUDGET)
        assert (int(found.lived[walker]) == 60) == (reason is Reason.BUDGET)
        frames = read(tmp_path / "run" / "results" / f"walker-{walker:04d}.extxyz", ":")
        assert frames[-1].info["step"] <= int(found.lived[walker])


def test_a_trajectory_that_was_cut_off_is_missed(silicon: SystemSpec, tmp_path: Path) -> None:
    experiment = dynamics(silicon, steps=40)
    with pytest.raises(Preempted):
        run(experiment, tmp_path / "run", pauses=25)
    file = tmp_path / "run" / "results" / "walker-0000.extxyz"
    kept = file.read_bytes()
    file.write_bytes(kept[:-1])
    with pytest.raises(CheckpointError, match=r"walker-0000.extxyz: this file has [\d,]+ bytes, and had"):
        run(experiment, tmp_path / "run")
    file.unlink()
    with pytest.raises(CheckpointError, match=r"walker-0000.extxyz: this file is missing, and had"):
        run(experiment, tmp_path / "run")
    file.write_bytes(kept + b"more")
    run(experiment, tmp_path / "run")
    run(experiment, tmp_path / "whole")
    assert file.read_bytes() == (tmp_path / "whole" / "results" / "walker-0000.extxyz").read_bytes()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"integrator": "lbfgs"}, "integrator: 'lbfgs' is not a Integrator but a LBFGS"),
        ({"steps": 0}, "steps: input should be greater than or equal to 1"),
        ({"equilibration": 25}, "equilibration must be less than steps, got 25 and 25"),
        ({"temperatures": [300.0, -1.0]}, "temperatures: a temperature must be positive and finite, got -1"),
        ({"min_distance": -0.1}, "min_distance: input should be greater than 0"),
        ({"temperature": 300.0}, "unknown key 'temperature' in the top level"),
    ],
)
def test_what_is_refused(settings: dict[str, Any], message: str) -> None:
    config = {
        "experiment": "md",
        "system": "Ar7",
        "potential": "lennard-jones",
        "integrator": {"name": "velocity-verlet", "time_step": 0.01, "initial_temperature": 0.1},
        "steps": 25,
    }
    with pytest.raises(ConfigError, match=message):
        load_experiment(config | settings)


def test_a_search_by_dynamics_has_no_force_threshold(silicon: SystemSpec) -> None:
    verlet = VelocityVerlet(time_step=1.0, initial_temperature=300.0)
    search = Search(system=silicon, potential=StillingerWeber(), optimizer=verlet, fmax=0.1)
    with pytest.raises(
        InputError, match="leave it out with a search such as basin-hopping, and with dynamics"
    ):
        search.check()


def test_a_random_start_needs_a_relaxation() -> None:
    with pytest.raises(
        InputError, match=r"atoms at random places push each other apart at once: add `relax: \{\}`"
    ):
        dynamics(SystemSpec(cluster="Ar7"), potential=LennardJones()).check()
    assert (
        load_experiment(
            {
                "experiment": "md",
                "system": "Ar7",
                "potential": "lennard-jones",
                "integrator": {"name": "langevin", "time_step": 0.01, "temperature": 0.1, "friction": 1.0},
                "steps": 25,
                "relax": {},
            }
        ).relax
        == Polish()
    )


@pytest.mark.slow
def test_the_fused_engine_gives_the_frames_of_the_eager_one(silicon: SystemSpec, tmp_path: Path) -> None:
    """And the same bytes in pieces."""
    pytest.importorskip("numba")
    eager, fused = (dynamics(silicon, temperatures=[300.0, 600.0], engine=one) for one in ("eager", "fused"))
    expected, found = run(eager, tmp_path / "eager"), run(fused, tmp_path / "fused")
    assert found.engine == "fused"
    torch.testing.assert_close(found.series, expected.series, rtol=1e-8, atol=1e-8)
    with pytest.raises(Preempted):
        run(fused, tmp_path / "pieces", pauses=1, due=False)
    run(fused, tmp_path / "pieces")
    for name in ("walker-0001.extxyz", "observables.csv"):
        whole = (tmp_path / "fused" / "results" / name).read_bytes()
        assert (tmp_path / "pieces" / "results" / name).read_bytes() == whole


def test_a_picture_names_temperatures(tmp_path: Path) -> None:
    """Two walkers of one temperature share a colour and a name."""
    series = torch.rand(5, 3, 4, dtype=torch.float64)
    given = torch.tensor([0.25, 0.25, 0.375])
    pictures.draw(torch.arange(5.0), series, given, Units.of("reduced"), tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text()
    assert text.count("<!-- 0.25 -->") == text.count("<!-- 0.375 -->") == 1

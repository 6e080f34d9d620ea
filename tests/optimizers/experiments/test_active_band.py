"""Bands of the experiment `active`: the barrier of the true potential, from a few labels, however the run is cut."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import add_adsorbate, bulk, fcc111
from ase.constraints import FixAtoms
from ase.io import read

from mlopt.core.atoms.systems import Systems
from mlopt.core.driver.driver import minimize
from mlopt.core.driver.stop import Reason
from mlopt.core.errors import InputError
from mlopt.core.landscapes.landscape import AtomsLandscape
from mlopt.core.structures.spec import SystemSpec
from mlopt.core.structures.write import write_extxyz
from mlopt.core.testing.experiment import check_experiment
from mlopt.core.testing.recorder import FolderRecorder
from mlopt.optimizers.bands.initial import geodesic
from mlopt.optimizers.bands.settings import BandSettings
from mlopt.optimizers.dynamics import Langevin
from mlopt.optimizers.experiments.active import Active, Asking, BandBetween, Beginning, Further
from mlopt.optimizers.experiments.active.band_walk import BandWalk
from mlopt.optimizers.fitting.training import Stage, Training
from mlopt.optimizers.labelling import PotentialLabeller
from mlopt.optimizers.local.lbfgs import LBFGS
from mlopt.optimizers.starts.starts import HarmonicStart
from mlopt.potentials import BehlerParrinello, Gupta, Mtp

TRUTH = Gupta(cutoff=5.0, taper=1.0)


def hop(kind: str) -> tuple[Atoms, Atoms]:
    """An atom of gold beside a vacancy and in it, or on two places of a surface whose lowest layer is fixed."""
    if kind == "vacancy":
        crystal = bulk("Au", cubic=True) * (2, 2, 2)
        initial = crystal[1:]
        final = initial.copy()
        nearest = int(np.argmin(crystal.get_distances(0, range(1, len(crystal)), mic=True)))
        final.positions[nearest] += crystal.get_distance(nearest + 1, 0, mic=True, vector=True)
    else:
        initial, final = (fcc111("Au", (3, 3, 3), a=4.08, vacuum=8.0) for _ in range(2))
        for one, site in ((initial, "fcc"), (final, "hcp")):
            add_adsorbate(one, "Au", 2.2, site)
            one.set_constraint(FixAtoms(indices=range(9)))
    for seed, one in enumerate((initial, final), 1):
        one.rattle(0.05, seed=seed)  # not on the atoms that are fixed
    return initial, final


def written(kind: str, folder: Path) -> tuple[str, str]:
    """The files of both ends."""
    found = []
    for name, atoms in zip(("initial", "final"), hop(kind), strict=True):
        write_extxyz(folder / f"{name}.extxyz", [atoms])
        found.append(str(folder / f"{name}.extxyz"))
    return found[0], found[1]


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    return written("vacancy", tmp_path)


def band(files: tuple[str, str], **settings: Any) -> Active:
    given: dict[str, Any] = {
        "system": SystemSpec(file=files[0]),
        "band": BandBetween(final=SystemSpec(file=files[1]), images=3, spring=1.0),
        "potential": Mtp(level=8, cutoff=5.0),
        "labeller": PotentialLabeller(potential=TRUTH),
        "optimizer": LBFGS(),
        "fmax": 0.01,
        "polish_fmax": 0.03,
        "force_calls": 1000,
        "begin": Beginning(structures=4, displacement=0.05, strain=0.0),
        "asking": Asking(labels=4),
        "labels": 80,
    }
    return Active(**(given | settings))


def reference(kind: str, images: int) -> tuple[float, float, int]:
    """The barriers of the true potential there and back, and how many structures it was evaluated for."""
    initial, final = (Systems.from_atoms(one) for one in hop(kind))
    ends = Systems.concatenate([initial, final])
    relaxed = minimize(AtomsLandscape(ends, TRUTH), LBFGS(), ends.pos, fmax=0.01, engine="eager")
    size = len(initial.pos)
    own = BandSettings(images=images, spring=1.0).make(
        AtomsLandscape(initial, TRUTH), relaxed.x[:size], relaxed.x[size:]
    )
    found = minimize(own, LBFGS(), geodesic(own), fmax=0.1, engine="eager")
    last = minimize(own.replace(climb=1), LBFGS(), found.x, fmax=0.01, engine="eager")
    calls = int(relaxed.calls.sum()) + images * int(found.calls.sum() + last.calls.sum())
    forward, reverse = (last.energy[0] - relaxed.energy).tolist()
    return forward, reverse, calls


@pytest.mark.slow
def test_a_band_with_a_network(files: tuple[str, str]) -> None:
    found = band(
        files,
        potential=BehlerParrinello(cutoff=4.5, functions="amp", hidden=[6]),
        training=Training(seeds=3, validation=0.0, stages=[Stage(evaluations=150)]),
        further=Further(evaluations=50),
        fmax=0.05,
        polish_fmax=0.1,
        labels=40,
    ).run()
    forward, reverse, _ = reference("vacancy", 3)
    assert found.barrier == pytest.approx((forward, reverse), abs=0.01) and not found.warnings


@pytest.mark.parametrize("kind", ["vacancy", pytest.param("surface", marks=pytest.mark.slow)])
def test_the_barrier_of_the_true_potential(kind: str, tmp_path: Path) -> None:
    files = written(kind, tmp_path)
    around = BandBetween(final=SystemSpec(file=files[1]), images=5, spring=1.0)
    experiment = band(files, band=around, potential=Mtp(level=12, cutoff=5.0), polish_fmax=0.04)
    experiment.check()
    found = experiment.run(FolderRecorder(tmp_path))
    forward, reverse, calls = reference(kind, 5)
    assert found.barrier == pytest.approx((forward, reverse), abs=3e-3)
    assert 3 * len(found.record.labels) < calls
    assert isinstance(found.walk, BandWalk) and found.walk.largest_force <= 0.04 and not found.warnings
    told = found.summary()
    assert found.barrier is not None and told["barrier_forward"] == found.barrier[0] and told.reached
    images = read(tmp_path / "results" / "saddle.extxyz", ":")
    energies = TRUTH.evaluate(Systems.from_atoms(images)).energy.tolist()
    assert [one.get_potential_energy() for one in images] == pytest.approx(energies, abs=1e-9)
    assert energies[1] - energies[0] == pytest.approx(found.barrier[0], abs=1e-9)
    triggers = [one["trigger"] for one in found.record.labels]
    assert triggers.count("end") >= 2 and triggers.count("saddle") >= 1


@pytest.mark.slow
def test_contract(files: tuple[str, str], tmp_path: Path) -> None:
    whole = check_experiment(lambda: band(files, polish_fmax=0.1, fmax=0.05), tmp_path / "runs")
    rows = list(csv.DictReader((whole / "results" / "labels.csv").read_text().splitlines()))
    assert rows[-1]["trigger"] == "saddle"
    assert len(read(whole / "results" / "walkers.extxyz", ":")) == 5


def test_a_force_that_does_not_fall_ends_after_patience(files: tuple[str, str]) -> None:
    """A potential of pairs cannot have the forces of the true one, and the best labels count."""
    stiff = Mtp(level=2, cutoff=4.0, pair_functions=2)
    found = band(files, potential=stiff, polish_fmax=1e-3, fmax=1e-3, asking=Asking(patience=2)).run()
    assert found.barrier is not None and set(found.reasons) == {Reason.CONVERGED}
    assert any("above 0.001: the potential is too stiff there" in one for one in found.warnings)


def test_a_budget_that_is_spent(files: tuple[str, str]) -> None:
    found = band(files, force_calls=8).run()
    assert found.barrier is None and found.summary().reached is False
    assert any("`force_calls` were spent" in one for one in found.warnings)
    assert set(found.reasons) == {Reason.BUDGET}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fmax": None}, "a band needs `fmax`"),
        ({"fmax": 0.1}, r"of at most `polish_fmax` \(0.03\)"),
        ({"start": HarmonicStart()}, "leave out `start`"),
        (
            {"optimizer": Langevin(time_step=1.0, temperature=300.0, friction=0.02)},
            "`optimizer` relaxes the band: Langevin follows dynamics",
        ),
    ],
)
def test_refusals(files: tuple[str, str], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        band(files, **settings).check()


def test_ends_that_do_not_fit(files: tuple[str, str], tmp_path: Path) -> None:
    def between(atoms: Atoms) -> Active:
        write_extxyz(tmp_path / "other.extxyz", [atoms])
        final = SystemSpec(file=str(tmp_path / "other.extxyz"))
        return band(files, band=BandBetween(final=final, images=3))

    initial, final = hop("vacancy")
    with pytest.raises(InputError, match="start and end are the same point"):
        between(initial).check()
    with pytest.raises(InputError, match=r"`band.final` has 30 atoms and `system` 31"):
        between(final[1:]).check()
    with pytest.raises(InputError, match="an image has climbed"):
        band(files, band=BandBetween(final=SystemSpec(file=files[1]), climb=0)).check()

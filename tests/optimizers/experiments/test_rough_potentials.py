"""Runs under a potential that does not give the same energy twice: they end, keep all, and say what they saw."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.cluster import Octahedron
from ase.io import read, write
from pydantic import PrivateAttr

from mlopt.core.atoms.systems import Systems
from mlopt.core.kernels.kernel import NoKernelError, PotentialKernel
from mlopt.core.landscapes.evaluation import Evaluation
from mlopt.core.lazy import torch
from mlopt.core.minima.store import MinimaStore
from mlopt.core.structures.spec import SystemSpec
from mlopt.core.testing.recorder import Recorder
from mlopt.optimizers import LBFGS, BasinHopping, Budget, MinimaSettings, Polish, Search
from mlopt.optimizers.bands.settings import Ends
from mlopt.optimizers.experiments.network.experiment import Network
from mlopt.optimizers.experiments.path.experiment import Path as Band
from mlopt.potentials import AsePotential, LennardJones
from mlopt.potentials.models.atoms import AtomsModel


class Rough(LennardJones):
    """Lennard-Jones whose energies repeat to ``noise``, relative; from call ``later`` on they are off by 1e-3."""

    noise: float = 1e-7
    later: float = float("inf")
    _calls: int = PrivateAttr(0)

    def evaluate(self, systems: Systems, *, stress: bool = False) -> Evaluation:
        self._calls += len(systems)
        found = super().evaluate(systems, stress=stress)
        factors = np.random.default_rng(self._calls).uniform(-1, 1, len(systems))
        energy = found.energy * (1.0 + self.noise * torch.from_numpy(factors).to(found.energy))
        return Evaluation(energy + 1e-3 * (self._calls > self.later), found.force, found.row_energy)


def search(potential: Any, **more: Any) -> Search:
    settings: dict[str, Any] = {
        "system": SystemSpec(cluster="Ar7"),
        "optimizer": BasinHopping(),
        "starts": 2,
        "budget": Budget(force_calls=80),
        "polish": Polish(force_calls=60),
        "engine": "eager",
    }
    return Search(potential=potential, **settings | more)


def test_a_search_ends_and_says_what_the_potential_repeats() -> None:
    potential = Rough()
    found = search(potential).run()
    told = found.summary()
    assert found.minima and told["unverified_minima"] == 0 and "warnings" not in told
    assert told["force_calls"] == potential._calls  # what was spent on repeats included
    assert 1e-7 < told["verified_within"] / (1 - told["best_energy"]) < 2.1e-6
    assert all(minimum.notes == {} for minimum in found.minima)
    exact = search(LennardJones()).run().summary()
    assert exact["verified_within"] == pytest.approx(1e-9 * (1 - exact["best_energy"]))


def test_energies_that_repeat_worse_than_the_window_are_told() -> None:
    found = search(Rough(), minima=MinimaSettings(energy_window=1e-7)).run()
    (warning,) = found.summary()["warnings"]
    assert warning.startswith("the potential repeats an energy only to ")
    assert "`minima.energy_window` is 1e-07: a minimum may be listed more than once" in warning


def test_minima_that_do_not_hold_are_marked_and_kept(tmp_path: Path) -> None:
    plain = search(Rough(noise=0.0))
    result = plain.run()
    before_check = result.force_calls - result.check.calls
    potential = Rough(noise=0.0, later=before_check)
    shared = tmp_path / "shared.db"
    recorder = Recorder(tmp_path / "run" / "results")
    found = search(potential, minima=MinimaSettings(database=str(shared))).run(recorder)
    told = found.summary()
    assert told["unverified_minima"] == len(found.minima) == len(result.minima) > 0
    assert told["status"] == "finished" and told["best_energy"] == result.summary()["best_energy"]
    (warning,) = told["warnings"]
    assert f"{len(found.minima)} of {len(found.minima)} minima have another energy" in warning
    for minimum in found.minima:
        assert minimum.notes["verified"] is False
        assert minimum.notes["energy_again"] == pytest.approx(minimum.energy + 1e-3, abs=1e-12)
    image = read(tmp_path / "run" / "results" / "minima.extxyz", 0)
    assert not image.info["verified"]
    assert image.info["energy_again"] == pytest.approx(image.get_potential_energy() + 1e-3, abs=1e-7)
    with MinimaStore(shared) as store:
        assert [one.notes for one in store] == [one.notes for one in found.minima]


def test_a_network_ends(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "system": SystemSpec(cluster="Ar3"),
        "starts": 1,
        "searches": 4,
        "force_calls": 100,
        "rounds": 1,
        "fmax": 1e-5,
        "energy_window": 1e-4,
    }
    potential = Rough()
    told = Network(potential=potential, **settings).run().summary()
    assert told["status"] == "finished" and told["unverified_points"] == 0
    assert told["verified_within"] > 1e-7
    off = Network(potential=Rough(noise=0.0, later=potential._calls // 4), **settings)
    found = off.run(Recorder(tmp_path / "results"))
    told = found.summary()
    assert told["unverified_points"] == len(found.check.missed) > 0
    assert "points have another energy when they are evaluated again" in told["warnings"][0]
    images = read(tmp_path / "results" / "minima.extxyz", ":")
    marked = [k for k, image in enumerate(images) if "verified" in image.info]
    assert marked == [k for k in found.check.missed if k < len(images)]


def test_a_path_ends(tmp_path: Path) -> None:
    """Four atoms with a fifth that goes over an edge from one face to the next."""
    square = np.array([[0, 0, 0], [1, 0, 0], [0.5, 0.87, 0], [0.5, 0.29, 0.82]])
    for name, place in (("a", [0.5, 0.29, -0.82]), ("b", [1.1, 0.8, 0.9])):
        write(tmp_path / f"{name}.xyz", Atoms("Ar5", [*square, place]))
    told = Band(
        model=AtomsModel(system=SystemSpec(file=str(tmp_path / "a.xyz")), potential=Rough()),
        initial={"file": str(tmp_path / "a.xyz")},
        final={"file": str(tmp_path / "b.xyz")},
        ends=Ends(align="none"),
        evaluations=60,
        fmax=1e-2,
    ).run()
    assert np.isfinite(told.barrier_forward) and told.summary()["status"] == "finished"


class Smeared(Calculator):
    """EMT, and an energy beside it that its forces do not belong to."""

    implemented_properties = ["energy", "free_energy", "forces"]  # noqa: RUF012  (ASE's protocol)
    calls = 0

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        self.calls += 1
        inner = atoms.copy()
        inner.calc = EMT()
        free = inner.get_potential_energy()
        self.results = {"energy": free + 0.5, "free_energy": free, "forces": inner.get_forces()}


def test_both_energies_of_a_smeared_calculator_are_told(tmp_path: Path) -> None:
    copper = Octahedron("Cu", 2)
    copper.rattle(0.05, seed=1)
    write(tmp_path / "cu6.xyz", copper)
    calculator = Smeared()  # type: ignore[no-untyped-call]
    found = search(
        AsePotential.wrap(calculator),
        system=SystemSpec(file=str(tmp_path / "cu6.xyz")),
        optimizer=LBFGS(),
        fmax=1e-2,
        starts=1,
        polish=Polish(force_calls=40, fmax=1e-4),
    ).run(Recorder(tmp_path / "results"))
    told = found.summary()
    assert told["force_calls"] == calculator.calls
    assert told["best_energy_zero_width"] == pytest.approx(told["best_energy"] + 0.5)
    (row,) = found.table()
    assert row["energy_zero_width"] == pytest.approx(row["polished_energy"] + 0.5)
    image = read(tmp_path / "results" / "minima.extxyz", 0)
    assert image.info["energy_zero_width"] == pytest.approx(image.get_potential_energy() + 0.5)


class Unknown(Rough):
    """One of which nothing says that it is exact. force_noise: absolute."""

    force_noise: float = 0.0

    def evaluate(self, systems: Systems, *, stress: bool = False) -> Evaluation:
        found = super().evaluate(systems, stress=stress)
        drawn = np.random.default_rng(self._calls).uniform(-1, 1, tuple(found.force.shape))
        return replace(found, force=found.force + self.force_noise * torch.from_numpy(drawn))

    def kernel(self, species: tuple[int, ...]) -> PotentialKernel:
        raise NoKernelError("none")


class Single(Unknown):
    """One that computes in single precision, and gives that again and again."""

    noise: float = 0.0

    def evaluate(self, systems: Systems, *, stress: bool = False) -> Evaluation:
        found = super().evaluate(systems.to(dtype=torch.float32), stress=stress)
        return Evaluation(found.energy.double(), found.force.double())


@pytest.mark.parametrize("noise", [1e-7, 1e-5])
def test_the_polish_lets_pass_what_the_potential_does_not_repeat(noise: float) -> None:
    """Else L-BFGS takes back steps that rose by nothing, again and again: 855 force calls instead of 281 at 1e-7."""
    smooth, rough = (search(Unknown(noise=one), polish=Polish()) for one in (0.0, noise))
    found, exact = rough.run(), smooth.run()
    told = found.summary()
    assert told["force_calls"] == rough.potential._calls < 1.1 * exact.force_calls  # type: ignore[attr-defined]
    assert noise / 10 < told["repeats_to"] / (1 - told["best_energy"]) < 2 * noise
    assert exact.summary()["repeats_to"] / (1 - told["best_energy"]) < 1e-10
    assert float(found.polished.fmax.max()) < 1e-6 and all(one.notes == {} for one in found.minima)


def test_what_is_known_to_be_exact_is_not_measured() -> None:
    known, unknown = search(LennardJones()).run(), search(Unknown(noise=0.0)).run()
    assert known.roughness is None and known.summary()["repeats_to"] is None
    assert unknown.roughness is not None and unknown.force_calls == known.force_calls + 4
    assert torch.equal(
        unknown.polished.energy, known.polished.energy
    )  # and a smooth one is polished as before


def test_single_precision_inside_a_potential_is_seen() -> None:
    """Its energies repeat to the last bit, and have steps all the same."""
    rough = search(Single()).run().roughness
    assert rough is not None and 1e-9 < rough.relative < 1e-6


def test_the_best_of_a_start_that_cannot_be_relaxed_further_is_kept_and_marked(tmp_path: Path) -> None:
    found = search(Unknown(force_noise=5e-3)).run(Recorder(tmp_path / "results"))
    told = found.summary()
    assert told["unique_minima"] == len(found.minima) > 0
    assert all(one.max_force > 1e-3 and one.notes["relaxed"] is False for one in found.minima)
    assert told["unverified_minima"] == 0  # their energies are right
    (warning,) = told["warnings"]
    assert warning.startswith(
        f"{len(found.minima)} of {len(found.minima)} minima were not relaxed to a force of 0.001"
    )
    assert not read(tmp_path / "results" / "minima.extxyz", 0).info["relaxed"]
    short = search(Unknown(noise=0.0), polish=Polish(force_calls=3)).run()
    assert short.minima == []  # of a smooth potential it is no minimum: the polish was too short

"""Errors by set and group, and doubts about labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from mlopt.core import Dataset, Evaluation, InputError, Systems
from mlopt.optimizers.fitting.checks import check_energies, check_stresses, doubts, stress_slope
from mlopt.optimizers.fitting.data import DrawnStructures
from mlopt.optimizers.fitting.least_squares import Weights, solve, triangle
from mlopt.optimizers.fitting.metrics import GPA, Errors
from mlopt.optimizers.labelling import PotentialLabeller
from mlopt.potentials import Mtp, StillingerWeber

pytest.importorskip("numba")


class Shifted(StillingerWeber):
    """Energies, forces and stresses that are off by known numbers."""

    def evaluate(self, systems: Systems, *, stress: bool = False) -> Evaluation:
        found = super().evaluate(systems, stress=stress)
        told = None if found.stress is None else found.stress + 0.5 / GPA
        atoms = systems.segments.counts.to(torch.float64)
        return replace(found, energy=found.energy + 0.01 * atoms, force=found.force + 0.1, stress=told)


def silicon(count: int = 12) -> Dataset:
    labeller = PotentialLabeller(potential=StillingerWeber())
    data = DrawnStructures(
        crystal={"element": "Si", "repeat": [1, 1, 1]}, count=count, labeller=labeller
    ).draw(0)
    return Dataset(data.systems, data.energy, data.force, data.stress, group=("bulk", "other") * (count // 2))


def test_errors_are_what_the_potential_is_off_by() -> None:
    data = silicon()
    row = Errors.of(Shifted(), data).row("all")
    assert row["structures"] == 12
    for name, wanted in (("energy", 0.01), ("force", 0.1), ("stress", 0.5)):
        for kind in ("mae", "rmse", "max"):
            assert row[f"{name}_{kind}"] == pytest.approx(wanted, rel=1e-6)
    assert row["force_vector_max"] == pytest.approx(0.1 * 3**0.5)
    assert row["energy_error"] == pytest.approx(0.0, abs=1e-9)
    assert row["force_error"] == pytest.approx(0.0, abs=1e-9)


def test_standard_errors_are_those_of_structures() -> None:
    data = silicon()
    off = torch.linspace(0.0, 1.1, 12, dtype=torch.float64)
    force = data.force + off.repeat_interleave(8)[:, None]
    row = Errors.of(StillingerWeber(), Dataset(data.systems, data.energy, force, data.stress)).row("")
    assert row["force_mae"] == pytest.approx(0.55)
    assert row["force_error"] == pytest.approx(float(off.std()) / 12**0.5)
    stress = data.stress + (off / GPA)[:, None, None]
    row = Errors.of(StillingerWeber(), Dataset(data.systems, data.energy, force, stress)).row("")
    assert row["stress_error"] == pytest.approx(float(off.std()) / 12**0.5)


def test_what_has_no_label_has_no_error() -> None:
    data = silicon()
    bare = Dataset(data.systems, energy=data.energy)
    row = Errors.of(Shifted(), bare).row("energies")
    assert row["force_mae"] is None and row["stress_max"] is None and row["energy_mae"] == pytest.approx(0.01)
    some = data.force.clone()
    some[:8] = torch.nan
    assert Errors.of(Shifted(), Dataset(data.systems, force=some)).row("")["force_mae"] == pytest.approx(0.1)


def test_groups_are_parts_of_the_whole() -> None:
    errors = Errors.of(Shifted(), silicon())
    groups = dict(errors.groups())
    assert list(groups) == ["bulk", "other"]
    assert [len(one.data) for one in groups.values()] == [6, 6]
    torch.testing.assert_close(groups["other"].force, errors.force.reshape(12, 8, 3)[1::2].reshape(-1, 3))
    assert errors.select(torch.tensor([0, 2])).groups() == []


def test_elements_are_parts_of_the_forces() -> None:
    """Of gallium and arsenic forces are off by other numbers; one structure has arsenic alone, one has no force."""
    systems = Systems.concatenate([Systems.cluster(one) for one in ([31, 33, 33], [33], [31, 31])])
    off = torch.tensor([1.0, 2.0, 4.0, 3.0, 9.0, 9.0], dtype=torch.float64)[:, None] * torch.ones(3)
    force = torch.zeros(6, 3, dtype=torch.float64)
    force[4:] = torch.nan
    data = Dataset(systems, torch.zeros(3, dtype=torch.float64), force)
    energy = torch.ones(3, dtype=torch.float64)
    errors = Errors(data, energy, off + force, data.stress, Evaluation(energy, off))
    rows = {symbol: one.row(f"test: element {symbol}") for symbol, one in errors.elements()}
    assert list(rows) == ["Ga", "As"] and rows["As"]["set"] == "test: element As"
    gallium, arsenic = rows["Ga"], rows["As"]
    assert (gallium["structures"], arsenic["structures"]) == (2, 2)
    assert gallium["force_mae"] == 1.0 and gallium["force_error"] is None
    assert arsenic["force_mae"] == 3.0 and arsenic["force_max"] == 4.0
    assert arsenic["force_rmse"] == pytest.approx((29.0 / 3.0) ** 0.5)
    # both structures with arsenic are off by 3 in the mean
    assert arsenic["force_error"] == 0.0 and arsenic["force_vector_max"] == pytest.approx(4.0 * 3**0.5)
    assert all(one[f"{name}_mae"] is None for one in rows.values() for name in ("energy", "stress"))
    assert errors.select(torch.tensor([1])).elements() == []


def test_the_worst_structure_comes_first() -> None:
    data = silicon()
    data.force[8 * 7] += 3.0
    data.force[8 * 3] += 2.0
    assert Errors.of(StillingerWeber(), data).worst(2) == [7, 3]
    energies = Dataset(data.systems, energy=data.energy.clone())
    energies.energy[5] += 1.0
    assert Errors.of(StillingerWeber(), energies).worst(1) == [5]


def fitted(data: Dataset) -> Errors:
    potential = Mtp(degrees=[8, 7], cutoff=3.8, pair_functions=8).prepared(data)
    solution = solve(triangle(potential, data, Weights()), potential.roughness())
    return Errors.of(potential.with_theta(solution.theta), data)


@pytest.mark.parametrize(
    ("factor", "words"),
    [
        (1.0, None),
        (-1.0, "of the other sign"),
        (GPA, "in GPa:"),
        (-GPA, "in GPa and of the other sign"),
        (10 * GPA, "in kbar:"),
        (-10 * GPA, "in kbar and of the other sign, as VASP prints them"),
    ],
)
def test_units_and_signs_of_stresses_are_seen_by_the_fit(factor: float, words: str | None) -> None:
    data = silicon(30)
    told = stress_slope(fitted(Dataset(data.systems, data.energy, data.force, factor * data.stress)))
    assert (told is None) if words is None else (told is not None and words in told)


def test_repeats_and_few_rows_are_said() -> None:
    data = silicon(4)
    repeated = Dataset.concatenate([data, data.select([1])])
    potential = Mtp(degrees=[10, 9], cutoff=3.8, pair_functions=8).prepared(data)
    rows = triangle(potential, repeated, Weights(force=0.0))
    solution = solve(rows, potential.roughness())
    made = potential.with_theta(solution.theta)
    told = " ".join(doubts(Errors.of(made, repeated), len(solution.theta), rows.rows))
    assert "1 of 5 structures to fit to are repeats of others" in told
    assert f"there are 5 rows of labels for {len(solution.theta)} parameters" in told
    assert np.isfinite(solution.theta.numpy()).all()


@pytest.mark.parametrize(("factor", "words"), [(10 * GPA, "in kbar"), (-1.0, "of the other sign")])
def test_stresses_that_would_be_fitted_to_are_looked_at_before(factor: float, words: str) -> None:
    data = silicon(30)
    wrong = Dataset(data.systems, data.energy, data.force, factor * data.stress)
    potential = Mtp(degrees=[8, 7], cutoff=3.8, pair_functions=8).prepared(data)
    weights = Weights(stress=1.0)
    with pytest.raises(
        InputError, match=rf"stresses seem to be {words}: .* Convert them, or set `weights.stress: 0`"
    ):
        check_stresses(potential, wrong, weights)
    check_stresses(potential, data, weights)
    check_stresses(potential, wrong, Weights())
    check_stresses(potential, Dataset(data.systems, stress=wrong.stress), weights)  # nothing to compare with


def test_repeats_with_other_labels_are_named() -> None:
    data = silicon(4)
    other = data.select([2])
    other.energy[0] += 0.25
    both = Dataset.concatenate([data, other])
    both = Dataset(both.systems, both.energy, both.force, source=tuple(f"frame {k}" for k in range(5)))
    potential = Mtp(degrees=[6, 5], cutoff=3.8, pair_functions=8).prepared(data)
    rows = triangle(potential, both, Weights())
    solution = solve(rows, potential.roughness())
    told = " ".join(
        doubts(Errors.of(potential.with_theta(solution.theta), both), len(solution.theta), rows.rows)
    )
    assert (
        "the energy of frame 4 is off by 0.25 eV from that of frame 2, which has the same positions" in told
    )


@pytest.mark.parametrize(
    ("energy", "force", "words"),
    [
        (1.0, -1.0, "-1 times .* forces seem to be gradients, of the other sign"),
        (23.06, 1.0, "energies seem to be in kcal/mol"),
        (96.5, 1.0, "energies seem to be in kJ/mol"),
        (1 / 27.2114, 1.0, "energies seem to be in hartree"),
        (1.0, 1 / 51.4221, "forces seem to be in hartree/bohr"),
        (1 / 27.2114, 1 / 51.4221, "both seem to be in atomic units"),
        (5.0, 1.0, "5 times .* one of the two is of another unit or sign"),
    ],
)
def test_energies_are_compared_with_forces(energy: float, force: float, words: str) -> None:
    data = silicon(30)
    wrong = Dataset(data.systems, energy * data.energy, force * data.force)
    potential = Mtp(degrees=[8, 7], cutoff=3.8, pair_functions=8).prepared(data)
    with pytest.raises(InputError, match=rf"{words}.*mlopt takes eV and eV/angstrom"):
        check_energies(potential, wrong, Weights())
    for sound in (data, Dataset(data.systems, data.energy - 5000.0, data.force)):
        check_energies(potential, sound, Weights())
    check_energies(potential, Dataset(data.systems, wrong.energy), Weights())  # nothing to compare with
    check_energies(potential, wrong, Weights(force=0.0))

"""Labelled structures from files: keys are found by their usual names, and a message names those that are there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from mlopt.core import InputError
from mlopt.core.structures import LabelledFile, read_dataset


def frames(keys: tuple[str, str] | None = None) -> list[Atoms]:
    """Two rattled cells of copper with energy, forces and stress: as results, or under other names."""
    images = []
    for index in range(2):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.1, seed=index)
        forces = np.random.default_rng(index).normal(size=(4, 3))
        atoms.info["config_type"] = ("bulk", "strained")[index]
        if keys is None:
            stress = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
            atoms.calc = SinglePointCalculator(atoms, energy=-3.0 - index, forces=forces, stress=stress)
        else:
            atoms.info[keys[0]] = -3.0 - index
            atoms.set_array(keys[1], forces)
        images.append(atoms)
    return images


def written(folder: Path, images: list[Atoms], name: str = "data.extxyz") -> Path:
    path = folder / name
    write(path, images, format="traj" if name.endswith(".traj") else "extxyz")
    return path


@pytest.mark.parametrize("name", ["data.extxyz", "data.xyz", "data.traj"])
def test_results_of_ase_are_labels(tmp_path: Path, name: str) -> None:
    images = frames()
    data = read_dataset(written(tmp_path, images, name))
    assert data.energy.tolist() == [-3.0, -4.0] and data.group == ("bulk", "strained")
    np.testing.assert_allclose(data.force[4:], images[1].get_forces(), atol=1e-8)
    np.testing.assert_allclose(data.stress[0], [[1, 6, 5], [6, 2, 4], [5, 4, 3]])
    assert data.source[1] == f"{name}: frame 1 (counted from 0)"


def test_named_keys(tmp_path: Path) -> None:
    path = written(tmp_path, frames(("dft_energy", "dft_forces")))
    data = LabelledFile(file=str(path), energy="dft_energy", forces="dft_forces", group="config_type").read()
    assert data.energy.tolist() == [-3.0, -4.0] and bool(data.with_force.all())
    assert not data.with_stress.any()
    assert LabelledFile.model_validate(str(path)).file == str(path)


def test_a_virial_is_minus_the_stress_times_the_volume(tmp_path: Path) -> None:
    images = frames(("energy", "forces"))
    for one in images:
        one.info["virial"] = -one.cell.volume * np.arange(9.0).reshape(3, 3)
    data = read_dataset(written(tmp_path, images))
    symmetric = 0.5 * (np.arange(9.0).reshape(3, 3) + np.arange(9.0).reshape(3, 3).T)
    np.testing.assert_allclose(data.stress[1], symmetric, rtol=1e-7)


def test_labels_may_be_missing_in_some(tmp_path: Path) -> None:
    images = frames()
    images[1].calc = None
    data = read_dataset(written(tmp_path, images))
    assert data.with_energy.tolist() == [True, False] == data.with_force.tolist()


@pytest.mark.parametrize(
    ("keys", "given", "message"),
    [
        (("energy", "force"), {}, "has no column `forces`, but force. Say `forces: force` if that is meant"),
        (("dft_energy", "forces"), {}, "has no `energy`, but dft_energy. Say `energy: dft_energy`"),
        (("energy", "forces"), {"energy": "E0"}, "no structure has 'E0', which `energy` names"),
        (
            ("energy", "force"),
            {"forces": "dft_force"},
            "the file has: .* Name the key, such as `forces: force`",
        ),
        (("energy", "forces"), {"forces": "config_type"}, "`config_type` is no number: 'bulk'"),
        (("energy", "forces"), {"energy": "forces"}, r"has the shape \(4, 3\) instead of \(\)"),
    ],
)
def test_messages_name_the_keys(
    tmp_path: Path, keys: tuple[str, str], given: dict[str, str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read_dataset(written(tmp_path, frames(keys)), **given)


def test_a_label_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    images = frames()
    images[1].calc.results["energy"] = float("nan")
    with pytest.raises(InputError, match=r"frame 1 \(counted from 0\): `energy` is not finite"):
        read_dataset(written(tmp_path, images, "data.traj"))


def test_structures_without_labels_are_refused(tmp_path: Path) -> None:
    bare = [Atoms("Cu2", positions=[[0, 0, 0], [0, 0, 2]])]
    with pytest.raises(InputError, match="has no energy, no forces and no stress"):
        read_dataset(written(tmp_path, bare))


def test_weights_are_read_where_they_are_named(tmp_path: Path) -> None:
    images = frames()
    images[0].info["w"] = 0.25
    path = written(tmp_path, images)
    assert read_dataset(path, weight="w").weight.tolist() == [0.25, 1.0]
    images[0].info["w"] = -0.25
    with pytest.raises(InputError, match=r"the weight -0\.25 is negative"):
        read_dataset(written(tmp_path, images), weight="w")
    assert torch.equal(read_dataset(path).weight, torch.ones(2, dtype=torch.float64))

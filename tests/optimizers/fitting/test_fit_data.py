"""Where structures of a fit come from: drawn ones repeat, what is left out is left out, twins are found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ase.io import write
from pydantic import ValidationError

from mlopt.core import Dataset, InputError
from mlopt.core.structures.crystal import Crystal
from mlopt.optimizers.fitting.data import DrawnStructures, FitData, twins
from mlopt.optimizers.labelling import PotentialLabeller
from mlopt.potentials import LennardJones, StillingerWeber


def drawn(count: int = 6, **settings: Any) -> DrawnStructures:
    labeller = PotentialLabeller(potential=StillingerWeber())
    return DrawnStructures(
        crystal={"element": "Si", "repeat": [1, 1, 1]}, count=count, labeller=labeller, **settings
    )


def test_the_same_seed_draws_the_same_structures() -> None:
    one, again, other = drawn().draw(0), drawn().draw(0), drawn().draw(1)
    assert one.digest() == again.digest() != other.digest()
    assert one.digest() == drawn(9).draw(0).select(range(6)).digest(), (
        "structures do not depend on how many there are"
    )
    assert one.with_stress.all() and len(set(one.keys())) == 6


def test_structures_stay_within_what_is_asked() -> None:
    calm = drawn(20, displacement=0.0, strain=0.0).draw(0)
    spread = calm.energy.max() - calm.energy.min()
    assert float(spread) < 1e-9 and float(calm.force.abs().max()) < 1e-9
    shaken = drawn(20, displacement=0.2, strain=0.0).draw(0)
    moved = (shaken.systems.pos - calm.systems.pos).abs()
    assert 0.1 < float(moved.max()) <= 0.2
    strained = drawn(20, displacement=0.0, strain=0.1).draw(0)
    ratio = strained.systems.cell @ torch.linalg.inv(calm.systems.cell) - torch.eye(3).double()
    assert 0.05 < float(ratio.abs().max()) <= 0.1
    torch.testing.assert_close(ratio, ratio.mT, rtol=0, atol=1e-12)


def test_what_is_left_out_is_not_fitted_to() -> None:
    data = FitData(drawn=drawn(10), leave_out=0.3)
    train, test = data.load(0)
    assert (len(train), len(test)) == (7, 3)
    assert set(train.keys()).isdisjoint(test.keys())
    assert {*train.keys(), *test.keys()} == set(drawn(10).draw(0).keys())
    assert len(FitData(drawn=drawn(10), leave_out=0.0).load(0)[1]) == 0


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "train.extxyz"
    write(path, drawn().draw(0).to_atoms())
    data = FitData.model_validate(str(path))
    train, test = data.load(0)
    assert len(train) == 5 and len(test) == 1
    whole, other = FitData(train=data.train, test=data.train).load(0)
    assert whole.digest() == other.digest()


def test_twins_have_composition_and_energy_in_common() -> None:
    data = drawn().draw(0)
    others = data.select([1, 4])
    others.energy[1] += 1e-3
    assert twins(data, others).tolist() == [False, True, False, False, False, False]
    assert not twins(data, Dataset(data.systems.select([]))).any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "give `train`, a file of labelled structures, or `drawn`, and not both"),
        ({"train": "a.xyz", "drawn": drawn()}, "and not both"),
    ],
)
def test_one_source(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        FitData(**settings)


def test_a_crystal_that_nobody_knows() -> None:
    with pytest.raises(ValidationError, match="'Xx' is no element"):
        DrawnStructures(crystal="Xx", labeller=PotentialLabeller(potential=LennardJones()))
    with pytest.raises(InputError, match="`crystal`: ASE knows no such crystal of Si"):
        Crystal(element="Si", lattice="cubes").load()
    with pytest.raises(ValidationError, match="three numbers of cells"):
        Crystal(element="Si", repeat=[1])

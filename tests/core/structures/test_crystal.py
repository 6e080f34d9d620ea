"""Crystals by name, as systems of a run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ase.build import bulk
from pydantic import ValidationError

from mlopt.core.errors import InputError
from mlopt.core.structures.crystal import Crystal
from mlopt.core.structures.spec import SystemSpec


@pytest.mark.parametrize(
    ("settings", "atoms"),
    [
        ("Cu", bulk("Cu", cubic=True).repeat(2)),
        ({"element": "Si", "repeat": [1, 2, 3]}, bulk("Si", cubic=True).repeat((1, 2, 3))),
        ({"element": "Cu", "lattice": "bcc", "a": 2.9}, bulk("Cu", "bcc", a=2.9, cubic=True).repeat(2)),
        ({"element": "Mg", "lattice": "hcp", "repeat": [1, 1, 1]}, bulk("Mg", "hcp")),
    ],
)
def test_it_is_that_of_ase(settings: Any, atoms: Any) -> None:
    system = SystemSpec(crystal=settings).load()
    assert np.array_equal(system.pos.numpy(), atoms.positions)
    assert np.array_equal(system.cell[0].numpy(), atoms.cell.array)
    assert system.z.tolist() == atoms.numbers.tolist() and bool(system.pbc.all())


def test_a_setting_beside_a_word() -> None:
    assert Crystal.model_validate({"name": "Cu", "repeat": [1, 1, 1]}) == Crystal(
        element="Cu", repeat=[1, 1, 1]
    )


def test_one_source_of_atoms() -> None:
    with pytest.raises(ValidationError, match=r"give one of `cluster`.*`file`.*and `crystal`"):
        SystemSpec(cluster="Cu13", crystal="Cu")
    assert SystemSpec(crystal="Cu").placed and not SystemSpec(cluster="Cu13").placed


def test_what_ase_does_not_know() -> None:
    with pytest.raises(InputError, match=r"ASE knows no such crystal of Si.*give `lattice` and `a`"):
        Crystal(element="Si", lattice="cubes").load()

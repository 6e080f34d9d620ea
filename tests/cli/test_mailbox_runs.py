"""A run whose labels come from elsewhere: exit code 75 until they are there."""

from __future__ import annotations

import pytest
from ase.io import read, write

from mlopt.potentials import StillingerWeber
from mlopt.potentials.ase import MloptCalculator

FIT = """
experiment: fit
potential: {name: mtp, level: 2, cutoff: 4.0}
data:
  drawn: {crystal: {element: Si, repeat: [1, 1, 1]}, count: 10, labeller: {name: mailbox, folder: box}}
"""


@pytest.mark.slow
def test_a_fit_waits_for_labels(mlopt, here):
    (here / "fit.yaml").write_text(FIT)
    told = mlopt("run", "fit.yaml", "--out", "x")
    assert told.code == 75 and "10 structures to label are in" in told.err
    assert not (here / "x").exists()
    images = read(here / "box" / "to-label.extxyz", ":")
    for atoms in images:
        atoms.calc = MloptCalculator(StillingerWeber())
        atoms.get_forces()
    write(here / "box" / "labelled.extxyz", images)
    assert mlopt("run", "fit.yaml", "--out", "x").code == 0

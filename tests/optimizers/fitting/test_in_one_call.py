"""A fit in three lines: it is the fit of the experiment, from whatever the labels stand in."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ase.io import write

from mlopt.core import InputError
from mlopt.optimizers import Stage, Training, fit
from mlopt.optimizers.experiments.fit import Fit
from mlopt.optimizers.fitting import DrawnStructures, FitData, Weights
from mlopt.optimizers.labelling import PotentialLabeller
from mlopt.potentials import BehlerParrinello, Mtp, StillingerWeber

pytest.importorskip("numba")

DRAWN = DrawnStructures(
    crystal={"element": "Si", "repeat": [1, 1, 1]},
    count=16,
    labeller=PotentialLabeller(potential=StillingerWeber()),
)
SMALL = Mtp(degrees=[6, 5], cutoff=3.8, pair_functions=4)


def test_a_linear_fit_is_that_of_the_experiment(tmp_path: Path) -> None:
    data = DRAWN.draw(0)
    wanted = Fit(data=FitData(drawn=DRAWN, leave_out=0.0), potential=SMALL, folds=2).run().potential
    found = fit(data, SMALL)
    images = data.to_atoms()
    write(tmp_path / "train.extxyz", images)
    for one in (found, fit(images, SMALL), fit(tmp_path / "train.extxyz", SMALL)):
        torch.testing.assert_close(
            one.evaluate(data.systems).energy, wanted.evaluate(data.systems).energy, rtol=1e-7, atol=1e-7
        )


def test_a_training_is_that_of_the_experiment() -> None:
    training = Training(stages=[Stage(evaluations=20)], validation=0.2, every=5)
    potential = BehlerParrinello(cutoff=3.8, hidden=[3], functions="amp")
    wanted = Fit(data=FitData(drawn=DRAWN, leave_out=0.0), potential=potential, training=training).run()
    found = fit(DRAWN.draw(0), potential, training=training)
    assert torch.equal(found.parameters, wanted.potential.parameters)


def test_atoms_without_labels_are_refused() -> None:
    images = DRAWN.draw(0).systems.to_atoms()
    with pytest.raises(InputError, match="atoms: has no energy, no forces and no stress"):
        fit(images, SMALL)


def test_arguments_of_the_other_kind_are_refused() -> None:
    data = DRAWN.draw(0)
    with pytest.raises(
        InputError, match="`training` plays no part, for the potential Mtp is linear in its parameters"
    ):
        fit(data, SMALL, training=Training())
    network = BehlerParrinello(cutoff=3.8)
    for name, given in (("weights", Weights()), ("radial", Stage())):
        with pytest.raises(
            InputError,
            match=f"`{name}` plays no part, for the potential BehlerParrinello is trained, with the weights",
        ):
            fit(data, network, **{name: given})  # type: ignore[arg-type]

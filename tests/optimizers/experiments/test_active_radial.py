"""The experiment `active` with radial functions that are fitted: to the first labels, and on as there are more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ase.build import bulk

from mlopt.core.atoms.dataset import Dataset
from mlopt.core.atoms.systems import Systems
from mlopt.core.errors import InputError
from mlopt.core.structures.spec import SystemSpec
from mlopt.core.testing.experiment import check_experiment
from mlopt.optimizers.dynamics import Langevin
from mlopt.optimizers.experiments.active import Active, Asking, Beginning, Further
from mlopt.optimizers.experiments.active.linear import LinearLearned
from mlopt.optimizers.fitting.training import Stage
from mlopt.optimizers.labelling import PotentialLabeller
from mlopt.potentials import Mtp, StillingerWeber

pytest.importorskip("numba")


def dynamics(**settings: Any) -> Active:
    """Silicon that melts."""
    given: dict[str, Any] = {
        "system": SystemSpec(crystal={"element": "Si", "repeat": [1, 1, 1]}),
        "potential": Mtp(level=6, cutoff=3.8, chebyshev=5, pair_functions=2, shortest=1.5),
        "labeller": PotentialLabeller(potential=StillingerWeber()),
        "optimizer": Langevin(time_step=2.0, temperature=2500.0, friction=0.02),
        "walkers": 2,
        "force_calls": 40,
        "begin": Beginning(structures=4, displacement=0.05),
        "asking": Asking(labels=3),
        "radial": Stage(evaluations=12),
        "labels": 20,
    }
    return Active(**(given | settings))


@pytest.mark.slow
def test_contract(tmp_path: Path) -> None:
    check_experiment(dynamics, tmp_path)


def data_of(experiment: Active, count: int) -> Dataset:
    images = []
    for seed in range(count):
        atoms = bulk("Si", cubic=True)
        atoms.rattle(0.05 + 0.02 * seed, seed=seed)
        images.append(atoms)
    return experiment.labeller.label(Systems.from_atoms(images))


def test_radial_functions_are_fitted_as_labels_grow_in_number() -> None:
    """To six labels, no more to seven, and on from there to nine; what is new has grades of one at most."""
    experiment = dynamics()
    learner, data = experiment.learner(experiment.system.load()), data_of(experiment, 9)
    first = learner.begun(data.select(range(6)))
    same = learner.extended(first, data.select([6]))
    moved = learner.extended(same, data.select([7, 8]))
    plain = dynamics(radial=None).learner(experiment.system.load()).begun(data.select(range(6)))
    assert all(isinstance(one, LinearLearned) for one in (first, same, moved, plain))
    assert [one.told().get("radial_labels") for one in (first, same, moved, plain)] == [6, 6, 9, None]
    values = [one.potential.nonlinear for one in (plain, first, same, moved)]
    assert not torch.equal(values[0], values[1]) and torch.equal(values[1], values[2])
    assert not torch.equal(values[2], values[3])
    assert float(same.grader.grade(data.select([6]).systems).system) < 1.01
    assert float(moved.grader.grade(data.systems).system.max()) < 1.01


def test_radial_functions_are_restored_bit_for_bit() -> None:
    experiment = dynamics(further=Further(growth=3.0))
    learner, data = experiment.learner(experiment.system.load()), data_of(experiment, 8)
    learned = learner.extended(learner.begun(data.select(range(6))), data.select([6]))
    again = learner.restored(learned.to_tensors())
    assert again.potential == learned.potential and again.told() == learned.told()
    more = data.select([7])
    assert learner.extended(again, more).potential == learner.extended(learned, more).potential


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"potential": Mtp(level=4, cutoff=3.8)},
            "the only radial function of this Mtp is of one degree; raise",
        ),
        ({"radial": Stage(batch=2)}, r"`radial\.batch`: .* takes all structures"),
    ],
)
def test_refusals(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        dynamics(**settings).check()

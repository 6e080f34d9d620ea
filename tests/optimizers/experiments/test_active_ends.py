"""Ends of relaxations on a potential that is learned: they are labelled, and forces of their labels vanish."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ase.io import read
from small_actives import Counting, Refusing, dynamics

from mlopt.core.atoms.systems import Systems
from mlopt.core.structures.spec import SystemSpec
from mlopt.core.testing.recorder import FolderRecorder
from mlopt.optimizers.experiments.active import Active, Asking, Beginning
from mlopt.optimizers.local.lbfgs import LBFGS
from mlopt.potentials import Gupta, Mtp


@pytest.fixture(autouse=True)
def _none_yet() -> None:
    Counting.counted.clear()


def gold(**settings: Any) -> Active:
    """Relaxations of a cluster from random starts, on a basis that is too small for all of them."""
    return dynamics(
        **{
            "system": SystemSpec(cluster="Au5"),
            "potential": Mtp(level=8, cutoff=6.0),
            "labeller": Counting(potential=Gupta()),
            "optimizer": LBFGS(),
            "fmax": 0.01,
            "walkers": 4,
            "force_calls": 300,
            "begin": Beginning(structures=6),
            "asking": Asking(labels=4),
            "soften": 3.0,
            "labels": 300,
        }
        | settings
    )


def true_forces(systems: Systems) -> torch.Tensor:
    return systems.segments.longest2(Gupta().evaluate(systems).force).sqrt()


def test_ends_of_relaxations_are_labelled(tmp_path: Path) -> None:
    """Forces of labels vanish there, which they do not where ends are left as the potential has them."""
    experiment = gold()
    found = experiment.run(FolderRecorder(tmp_path))
    forces = true_forces(found.found)
    assert sorted(found.ends or {}) == [0, 1, 2, 3] and not found.warnings
    assert float(forces.max()) < 0.01 == experiment.polish_fmax
    numbers = found.summary()
    assert numbers["ends"] == 4 and numbers["largest_force_of_labels"] == pytest.approx(float(forces.max()))
    assert {one["trigger"] for one in found.record.labels} >= {"end", "polish"}
    images = read(tmp_path / "results" / "walkers.extxyz", ":")
    truth = Gupta().evaluate(found.found)
    assert [one.get_potential_energy() for one in images] == pytest.approx(truth.energy.tolist())
    without = gold(asking=Asking(labels=4, ends=False)).run()
    assert without.ends is None and len(without.record.labels) < len(found.record.labels)
    assert float(true_forces(without.found).max()) > 0.1


@pytest.mark.slow
def test_ends_without_labels() -> None:
    """A warning tells for how many of them no label or no force call was left."""
    found = gold(force_calls=3).run()
    told = "4 of 4 relaxations have no labelled end; raise `labels` or `force_calls`"
    assert found.ends == {} and found.warnings[-1] == told
    enough = [one["trigger"] for one in gold().run().record.labels].index("end")
    found = gold(labels=enough + 1).run()
    assert len(found.ends or {}) == 1 and found.warnings[-1] == told.replace("4 of 4", "3 of 4")
    assert found.warnings[-2].startswith("forces of labels are above 0.01 at the ends of 1 of 4 relaxations")
    (walker,) = found.ends or {}
    assert float(true_forces(found.found)[walker]) == found.summary()["largest_force_of_labels"]


@pytest.mark.slow
def test_an_end_that_cannot_be_labelled() -> None:
    """It has none, and the other relaxations end."""
    before = len(gold(asking=Asking(labels=4, ends=False)).run().record.labels)
    Counting.counted.clear()
    found = gold(labeller=Refusing(potential=Gupta(), after=before)).run()
    assert sorted(found.ends or {}) == [1, 2, 3] and found.record.failed == 1
    assert "1 of 4 relaxations have no labelled end" in found.warnings[-1]
    assert float(true_forces(found.found)[1:].max()) < 0.01

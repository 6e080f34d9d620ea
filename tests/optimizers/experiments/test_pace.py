"""Every kind of run says from its first steps on how long it will take."""

from __future__ import annotations

import pytest
import torch

from mlopt.core.protocols.learning import Task
from mlopt.core.runs import pace
from mlopt.core.runs.experiment import Preempted
from mlopt.core.structures.spec import SystemSpec
from mlopt.core.testing.recorder import Recorder, Resumed
from mlopt.optimizers import Budget, Search
from mlopt.optimizers.bands.settings import BandSettings
from mlopt.optimizers.experiments.contest.experiment import Contest, Contestant
from mlopt.optimizers.experiments.meta_train.experiment import MetaTrain
from mlopt.optimizers.experiments.network.experiment import Network
from mlopt.optimizers.experiments.path.experiment import Path
from mlopt.optimizers.local.fire import Fire
from mlopt.optimizers.local.lbfgs import LBFGS
from mlopt.optimizers.searches.scipy_search import ScipyBasinHopping
from mlopt.optimizers.training.tasks.systems import Case
from mlopt.optimizers.training.unrolled_gradient import UnrolledGradient
from mlopt.potentials import LennardJones
from mlopt.potentials.models.surfaces import MullerBrown


class Bowl(Task):
    """``(theta - 3)^2``."""

    @property
    def theta(self) -> torch.Tensor:
        return torch.zeros(2, dtype=torch.float64)

    def losses(self, theta: torch.Tensor, epoch: int, seed: int = 0) -> torch.Tensor:
        return ((theta - 3.0) ** 2).sum(-1)

    def named(self, theta: torch.Tensor) -> dict[str, float]:
        return {"a": float(theta[0])}


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tell after the first steps instead of after the first seconds."""
    monkeypatch.setattr(pace, "AFTER", 0.0)


AR3 = {"system": SystemSpec(cluster="Ar3"), "potential": LennardJones()}


def test_search_and_contest() -> None:
    search = Search(**AR3, optimizer=Fire(), starts=4, budget=Budget(force_calls=10), engine="eager")
    recorder = Recorder()
    search.run(recorder)
    (told,) = recorder.logged
    assert told.startswith("a force call takes ") and "; at most 36 are left: at most " in told
    assert "left" in recorder.lines[0][1] and "left" not in recorder.lines[-1][1]
    contestants = [Contestant(label=label, optimizer=Fire()) for label in ("one", "other")]
    contest = Contest(
        systems=[Case(**AR3)], contestants=contestants, starts=4, force_calls=10, engine="eager"
    )
    recorder = Recorder()
    contest.run(recorder)
    told = " ".join(recorder.logged)
    assert "one on Ar3: a force call takes" in told and "at most 76 are left" in told
    assert "other on Ar3: a force call takes" in told and "at most 36 are left" in told


def test_a_search_that_owns_its_loop() -> None:
    search = Search(**AR3, optimizer=ScipyBasinHopping(), starts=3, budget=Budget(force_calls=20))
    recorder = Recorder()
    search.run(recorder)
    assert not recorder.logged or "are left" in recorder.logged[0]


def test_path_and_its_ends() -> None:
    path = Path(
        model=MullerBrown(),
        initial={"name": "A"},
        final={"name": "B"},
        band=BandSettings(images=15, spring=500.0, climb=0),
        optimizer=LBFGS(max_step=0.05),
        fmax=1.0,
    )
    recorder = Recorder()
    path.run(recorder)
    assert recorder.logged[0].startswith("a force call takes ")
    assert "the ends relax: " in recorder.lines[0][1] and " left" in recorder.lines[0][1]


def test_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "EVERY", 0.0)
    recorder = Recorder()
    Network(**AR3, starts=2, searches=4, rounds=1, force_calls=50).run(recorder)
    assert recorder.logged[0].startswith("a force call takes ")
    assert "are left in this round: at most " in recorder.logged[0]


def test_meta_training_tells_after_its_first_epoch() -> None:
    training = MetaTrain(task=Bowl(), trainer=UnrolledGradient(), epochs=3, evaluate_every=3)
    recorder = Recorder()
    training.run(recorder)
    (told,) = recorder.logged
    assert told.startswith("an epoch takes ") and "; 2 are left: about " in told
    stopped = Recorder(pauses=0)
    with pytest.raises(Preempted):
        training.run(stopped)
    resumed = Resumed(stopped)
    training.run(resumed)
    assert "; 1 are left: about " in resumed.logged[0]

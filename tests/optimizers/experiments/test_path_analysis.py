"""A potential that fails once after a band has converged: what was relaxed is kept, what is not known is null."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import pytest
import torch

from mlopt.core.batch.segments import Segments
from mlopt.core.errors import MloptError
from mlopt.core.testing.recorder import Recorder, Resumed
from mlopt.optimizers.bands.settings import BandSettings
from mlopt.optimizers.experiments.path import pictures
from mlopt.optimizers.experiments.path.experiment import Path
from mlopt.optimizers.experiments.path.result import PathResult
from mlopt.optimizers.local.lbfgs import LBFGS
from mlopt.potentials.models.surfaces import LepsHarmonic

BARRIER = 3.633951


def leps(**changes: Any) -> Path:
    given: dict[str, Any] = {
        "model": LepsHarmonic(),
        "initial": {"name": "A"},
        "final": {"name": "B"},
        "band": BandSettings(images=3, spring=2.0),
        "optimizer": LBFGS(max_step=0.1),
        "fmax": 1e-5,
    }
    return Path(**(given | changes))


class Faulty:
    """The surface of `LepsHarmonic`, of which call number ``at`` fails; counts its calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.inner = LepsHarmonic.energy
        self.fail(-1, nan)
        monkeypatch.setattr(LepsHarmonic, "energy", lambda model, x, segments: self(model, x, segments))

    def fail(self, at: int, how: Callable[[torch.Tensor], Any]) -> None:
        self.calls, self.at, self.how = 0, at, how

    def __call__(self, model: LepsHarmonic, x: torch.Tensor, segments: Segments) -> Any:
        self.calls += 1
        energy = self.inner(model, x, segments)
        return self.how(energy) if self.calls == self.at else energy


def nan(energy: torch.Tensor) -> torch.Tensor:
    return energy * float("nan")


def raised(energy: torch.Tensor) -> Any:
    raise RuntimeError("the licence server\ndid not answer")


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> Faulty:
    return Faulty(monkeypatch)


def counts(faulty: Faulty, monkeypatch: pytest.MonkeyPatch, folder: FilePath) -> tuple[int, int]:
    """Calls until the band is written, and all but those for pictures."""
    before, write = [], LepsHarmonic.write

    def watched(self: LepsHarmonic, *args: Any) -> Any:
        before.append(faulty.calls)
        return write(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(LepsHarmonic, "write", watched)
        patch.setattr(pictures, "write", lambda found, folder: None)
        leps().run(Recorder(folder))
    return before[0], faulty.calls


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are slow."""
    monkeypatch.setattr(pictures, "write", lambda found, folder: None)


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("how", [nan, pytest.param(raised, marks=pytest.mark.slow)], ids=["NaN", "raises"])
def test_a_failure_in_the_analysis_loses_no_band(
    how: Any, faulty: Faulty, monkeypatch: pytest.MonkeyPatch, tmp_path: FilePath
) -> None:
    written, total = counts(faulty, monkeypatch, tmp_path / "whole")
    unknown = 0
    for at in range(written + 1, total + 1, (total - written) // 4):
        faulty.fail(at, how)
        found = leps().run(Recorder(tmp_path / str(at)))
        summary = found.summary()
        assert found.converged and found.barrier_forward == pytest.approx(BARRIER, abs=1e-5)
        assert summary["connects_the_ends"] is not False, at
        if summary["connects_the_ends"] is None:
            unknown += 1
            assert summary["note"], at
        if summary["negative_modes"] is None:
            assert summary["note"].startswith("no modes of the saddle: ")
        if how is raised and summary["note"]:
            assert "RuntimeError: the licence server did not answer" in summary["note"]
        assert {"path.csv", "saddle.csv", "profile.csv"} <= {
            file.name for file in (tmp_path / str(at)).iterdir()
        }
    assert unknown > 0


@pytest.mark.usefixtures("no_pictures")
def test_an_energy_that_fails_as_the_barrier_is_read_is_no_result(
    faulty: Faulty, monkeypatch: pytest.MonkeyPatch, tmp_path: FilePath
) -> None:
    """The path is written and the run fails; resumed, it reads the barrier without relaxing again."""
    written, total = counts(faulty, monkeypatch, tmp_path / "whole")
    for at in (written, written - 1):  # the two looks at the images
        context = Recorder(tmp_path / str(at))
        faulty.fail(at, nan)
        with pytest.raises(MloptError, match=r"there is no barrier: .*resume the run"):
            leps().run(context)
        assert (tmp_path / str(at) / "path.csv").exists()
        before = faulty.calls
        again: PathResult = leps().run(Resumed(context))
        assert again.barrier_forward == pytest.approx(BARRIER, abs=1e-5) and again.converged
        assert faulty.calls - before <= total - written + 10


def test_a_picture_that_cannot_be_drawn_is_a_note(
    faulty: Faulty, monkeypatch: pytest.MonkeyPatch, tmp_path: FilePath
) -> None:
    _, total = counts(faulty, monkeypatch, tmp_path / "whole")
    faulty.fail(total + 1, raised)
    found = leps().run(Recorder(tmp_path))
    assert found.note == "not all pictures were drawn: RuntimeError: the licence server did not answer"
    assert found.negative_modes == 1 and found.summary()["connects_the_ends"] is True


def test_a_band_that_meets_no_finite_energy_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: FilePath
) -> None:
    inner = LepsHarmonic.energy

    def broken(model: LepsHarmonic, x: torch.Tensor, segments: Segments) -> torch.Tensor:
        energy = inner(model, x, segments)
        return torch.where((x[:, 0] > 1.5) & (x[:, 0] < 2.5), torch.inf, energy)

    monkeypatch.setattr(LepsHarmonic, "energy", broken)
    with pytest.raises(
        MloptError,
        match=r"no barrier: image [\d, ]+ of the path has no finite energy .*became NaN or infinite",
    ):
        leps().run(Recorder(tmp_path))
    energies = np.loadtxt(tmp_path / "path.csv", delimiter=",", skiprows=1)[:, 2]
    assert np.isfinite(energies[[0, -1]]).all() and not np.isfinite(energies).all()

"""The experiment `path`, end to end: barriers with closed forms, files, refusals, stops and resumes."""

from __future__ import annotations

import json
from pathlib import Path as FilePath
from typing import Any

import pytest
import torch

from mlopt.core.errors import InputError
from mlopt.core.runs.checkpoint import Checkpoint
from mlopt.core.runs.experiment import Preempted
from mlopt.core.testing.recorder import Recorder, Resumed
from mlopt.optimizers import BasinHopping, Fire, ScipyBasinHopping
from mlopt.optimizers.bands.settings import BandSettings, Ends, PathStart, Saddle
from mlopt.optimizers.experiments.path.experiment import Path
from mlopt.optimizers.experiments.path.result import PathResult
from mlopt.optimizers.local.lbfgs import LBFGS
from mlopt.potentials.models.surfaces import LepsHarmonic, MullerBrown
from mlopt.potentials.spins import Anisotropy, Heisenberg, SpinLattice

ONE = SpinLattice(kind="chain", repeat=[1])
BIAXIAL = Heisenberg(
    lattice=ONE,
    units="reduced",
    anisotropy=[Anisotropy(axis=[1, 0, 0], k=1.0), Anisotropy(axis=[0, 0, 1], k=-2.0)],
)


def biaxial(**changes: Any) -> Path:
    given: dict[str, Any] = {
        "model": BIAXIAL,
        "initial": {"kind": "ferromagnet", "direction": [1, 0, 0]},
        "final": {"kind": "ferromagnet", "direction": [-1, 0, 0]},
        "start": PathStart(axis=[0.0, 0.0, 1.0], disturbance=0.05),
        "band": BandSettings(images=6),
        "optimizer": LBFGS(max_step=0.1),
        "fmax": 1e-8,
    }
    return Path(**(given | changes))


def leps(**changes: Any) -> Path:
    given: dict[str, Any] = {
        "model": LepsHarmonic(),
        "initial": {"name": "A"},
        "final": {"name": "B"},
        "band": BandSettings(images=7, spring=2.0),
        "optimizer": LBFGS(max_step=0.1),
        "fmax": 1e-7,
    }
    return Path(**(given | changes))


def test_biaxial_spin() -> None:
    found = biaxial(saddle=Saddle(temperature=0.1)).run()
    assert found.converged and found.negative_modes == 1
    assert found.barrier_forward == pytest.approx(1.0, abs=1e-12)
    assert found.barrier_reverse == pytest.approx(1.0, abs=1e-12)
    assert found.summary()["eigenvalues"] == pytest.approx([-2.0, 4.0], abs=1e-8)
    assert found.summary()["connects_the_ends"] is True
    assert found.rate is not None and found.rate.prefactor == pytest.approx(0.5513288954, abs=1e-9)
    assert torch.linalg.vector_norm(found.path, dim=-1).sub(1).abs().max() < 1e-12


def test_biaxial_spin_in_a_field() -> None:
    """Saddle at Sx = -b / 2K, barriers K (1 +- b / 2K)^2; the climbing image finds it off the middle."""
    b = 0.4
    model = BIAXIAL.replace(field_energy=[b, 0.0, 0.0])
    found = biaxial(model=model).run()
    assert found.barrier_forward == pytest.approx((1 + b / 2) ** 2, abs=1e-10)
    assert found.barrier_reverse == pytest.approx((1 - b / 2) ** 2, abs=1e-10)
    assert float(found.saddle[0, 0]) == pytest.approx(-b / 2, abs=1e-7)


@pytest.mark.parametrize("optimizer", [LBFGS(max_step=0.1), Fire(dt=0.02)], ids=["lbfgs", "fire"])
def test_leps(optimizer: Any) -> None:
    found = leps(optimizer=optimizer).run()
    assert found.saddle_energy == pytest.approx(-0.875225, abs=1e-6)
    assert found.summary()["eigenvalues"] == pytest.approx([-8.0027, 0.66545], abs=1e-4)
    assert (found.barrier_forward, found.barrier_reverse) == pytest.approx((3.633951, 1.745062), abs=1e-6)


def test_no_image_climbs() -> None:
    """The summit of the cubic curve is close to the saddle; that of the images is not."""
    found = leps(band=BandSettings(images=15, spring=2.0, climb=0)).run()
    assert found.saddle_energy == pytest.approx(-0.875225, abs=5e-3)
    assert float(found.energy.max()) < found.saddle_energy


def test_string() -> None:
    found = leps(band=BandSettings(kind="string", images=15), fmax=1e-4).run()
    assert found.saddle_energy == pytest.approx(-0.875225, abs=2e-3)
    gaps = found.s.diff()
    assert float(gaps.max() / gaps.min()) < 1.001


def test_two_passes_climb_at_once() -> None:
    found = Path(
        model=MullerBrown(),
        initial={"name": "A"},
        final={"name": "B"},
        band=BandSettings(images=15, spring=500.0, climb=2),
        optimizer=LBFGS(max_step=0.05, scale=5e-4),
        fmax=1e-7,
        climb_below=20.0,
    ).run()
    energies = found.energy
    tops = [k for k in range(1, 16) if energies[k] > energies[k - 1] and energies[k] >= energies[k + 1]]
    assert energies[tops].tolist() == pytest.approx([-40.66484351, -72.24894011], abs=1e-8)
    assert found.summary()["connects_the_ends"] is False  # there is a minimum between them


def test_many_paths_in_one_batch_are_each_as_alone() -> None:
    many = biaxial(paths=3).run()
    assert many.barriers == pytest.approx([1.0] * 3, abs=1e-12)
    assert many.gradient_evaluations > biaxial().run().gradient_evaluations


def test_evaluations_are_all_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    inner = LepsHarmonic.energy

    def energy(self: LepsHarmonic, x: torch.Tensor, segments: Any) -> torch.Tensor:
        seen.append(len(x))
        return inner(self, x, segments)

    monkeypatch.setattr(LepsHarmonic, "energy", energy)
    found = leps(saddle=Saddle(modes=0, connect=False)).run()
    assert sum(seen) == found.gradient_evaluations + found.other_evaluations


def test_files(tmp_path: FilePath) -> None:
    context = Recorder(tmp_path)
    found = biaxial().run(context)
    names = {file.name for file in tmp_path.iterdir()}
    assert names == {"path.ovf", "saddle.ovf", "profile.csv", "profile.svg", "surface.svg"}
    start = PathStart(file=str(tmp_path / "path.ovf"))
    again = biaxial(start=start, ends=Ends(relax=False), climb_below=1.0).run()
    assert again.gradient_evaluations <= 3 * 6  # it was relaxed
    assert again.barrier_forward == pytest.approx(found.barrier_forward, abs=1e-12)
    assert len((tmp_path / "profile.csv").read_text().splitlines()) == 1 + 8
    json.dumps(found.summary(), allow_nan=False)


def equal(a: PathResult, b: PathResult) -> None:
    assert a.summary() | {"wall_s": 0} == b.summary() | {"wall_s": 0}
    assert torch.equal(a.path, b.path) and torch.equal(a.saddle, b.saddle)


def test_a_checkpoint_of_a_version_that_aligned_nothing_goes_on() -> None:
    run = biaxial(fmax=1e-5)
    context = Recorder(pauses=0)
    with pytest.raises(Preempted):
        run.run(context)
    resumed = Resumed(context)
    former = resumed.restored()
    assert former is not None
    meta = {key: value for key, value in former.meta.items() if key not in ("alignment", "notes")}
    resumed.restored = lambda: Checkpoint(former.tensors, meta)  # type: ignore[method-assign]
    equal(run.run(resumed), run.run())


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"start": PathStart()}, r"have opposite directions at site 0 \(cell 0, 0, 0\).*give an `axis`"),
    (
        {"final": {"kind": "ferromagnet", "direction": [1, 0, 0]}},
        "are the same minimum: everything is within 1e-06 of its place",
    ),
    (
        {"ends": Ends(relax=False), "initial": {"kind": "ferromagnet", "direction": [1, 0.2, 0]}},
        r"`initial` is not a minimum: the force on site 0 .* is 0\.\d+, above 1e-09. Leave out",
    ),
    ({"initial": {"kind": "ferromagne"}}, "a state of spins needs a `kind`"),
    ({"device": "cuda"}, "torch sees no CUDA device"),
]


@pytest.mark.parametrize("changes, message", REFUSED, ids=[message[:20] for _, message in REFUSED])
def test_refusals(changes: dict[str, Any], message: str) -> None:
    if changes.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(InputError, match=message):
        biaxial(**changes).check()


def test_settings_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="no image of a string climbs"):
        BandSettings(kind="string", climb=1)
    with pytest.raises(ValueError, match="is the whole path"):
        PathStart(file="a.ovf", way="idpp")
    assert (BandSettings(kind="string").climbing, BandSettings().climbing) == (0, 1)
    with pytest.raises(ValueError, match="BasinHopping is a search, which does not end at a minimum"):
        biaxial(optimizer=BasinHopping())
    with pytest.raises(ValueError, match="ScipyBasinHopping owns its loop"):
        biaxial(optimizer=ScipyBasinHopping())


def test_an_end_that_does_not_relax() -> None:
    with pytest.raises(InputError, match="`initial` did not relax to a force of 1e-08 within 2 evaluations"):
        leps(initial={"point": [1.0, 0.5]}, ends=Ends(evaluations=2, fmax=1e-8)).run()


def test_a_path_file_of_another_length(tmp_path: FilePath) -> None:
    biaxial().run(Recorder(tmp_path))
    changed = biaxial(start=PathStart(file=str(tmp_path / "path.ovf")), band=BandSettings(images=4))
    with pytest.raises(
        InputError, match=r"has 8 images; 4 moving ones and two ends need 6: set `band.images` to 6"
    ):
        changed.check()

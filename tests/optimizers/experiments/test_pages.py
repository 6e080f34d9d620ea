"""What the reports of `path`, `network`, `contest` and `meta-train` show: cards, tables, figures that were written."""

from __future__ import annotations

import math
from pathlib import Path as FilePath
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mlopt.core.protocols.learning import Task
from mlopt.core.reporting.statistics import Estimate
from mlopt.core.reporting.summary import Figure, Summary
from mlopt.core.structures.spec import SystemSpec
from mlopt.core.testing.recorder import Recorder
from mlopt.optimizers import LBFGS
from mlopt.optimizers.bands.settings import BandSettings, PathStart, Saddle
from mlopt.optimizers.experiments.contest.result import ContestResult
from mlopt.optimizers.experiments.meta_train.experiment import MetaTrain
from mlopt.optimizers.experiments.network.experiment import Network
from mlopt.optimizers.experiments.network.pictures import branches
from mlopt.optimizers.experiments.path import pictures
from mlopt.optimizers.experiments.path.experiment import Path
from mlopt.optimizers.training.unrolled_gradient import UnrolledGradient
from mlopt.potentials import LennardJones
from mlopt.potentials.spins import Anisotropy, Heisenberg, SpinLattice

BIAXIAL = Heisenberg(
    lattice=SpinLattice(kind="chain", repeat=[1]),
    units="meV",
    anisotropy=[Anisotropy(axis=[1, 0, 0], k=1.0), Anisotropy(axis=[0, 0, 1], k=-2.0)],
)
ENDS: dict[str, Any] = {
    "initial": {"kind": "ferromagnet", "direction": [1, 0, 0]},
    "final": {"kind": "ferromagnet", "direction": [-1, 0, 0]},
}


def cards(summary: Summary) -> dict[str, tuple[Any, str, str]]:
    return {card.label: (card.value, card.unit, card.note) for card in summary.cards}


def files(summary: Summary) -> list[str]:
    return [figure.file for figure in summary.figures if isinstance(figure, Figure)]


def test_a_path_shows_barriers_modes_and_rate(tmp_path: FilePath) -> None:
    found = Path(
        model=BIAXIAL,
        **ENDS,
        start=PathStart(axis=[0.0, 0.0, 1.0], disturbance=0.05),
        band=BandSettings(images=4),
        optimizer=LBFGS(max_step=0.1),
        fmax=1e-8,
        saddle=Saddle(temperature=10.0),
    ).run(Recorder(folder=tmp_path))
    summary = found.summary()
    shown = cards(summary)
    assert shown["barrier"][0] == pytest.approx(1.0) and shown["barrier"][1] == "meV"
    assert shown["barrier back"][0] == pytest.approx(1.0) and shown["barrier back"][2] == "from the end"
    assert shown["negative modes"] == (1, "", "a saddle of first order")
    assert shown["connects the ends"][0] is True and shown["converged"][0] is True
    assert shown["evaluations"][0] == summary["gradient_evaluations"] + summary["other_evaluations"]
    assert shown["rate"][0].endswith(" 1/s") and shown["lifetime"][2] == "at 10 K"
    assert [row[0] for row in summary.tables[0].rows] == ["start", "1", "2", "3", "4", "end"]
    assert summary.reached is True
    assert files(summary) == ["profile.svg", "surface.svg"]
    assert all((tmp_path / file).stat().st_size for file in files(summary))


def test_spins_are_shown_in_the_order_of_the_path() -> None:
    path = torch.arange(9.0, dtype=torch.float64).reshape(9, 1, 1)
    energy = torch.tensor([0.0, 1, 2, 3, 4, 9, 3, 2, 1])
    found: Any = SimpleNamespace(path=path, energy=energy, saddle=path[5])
    titles = [title for title, _ in pictures._frames(found)]
    assert titles == ["start", "image 2", "image 4", "saddle", "image 6", "end"]
    found = SimpleNamespace(path=path, energy=energy, saddle=path[4])
    assert "image 4" not in [title for title, _ in pictures._frames(found)], "the saddle is that image"


def test_branches_meet_at_the_lowest_saddles() -> None:
    """Merging of four minima by hand; the last one is joined to none."""
    saddles = [(-1.0, 1, 2), (-0.5, 0, 2), (-0.4, 0, 1)]
    tree, lone = branches([-4.0, -3.0, -2.0, -1.5], saddles)
    assert (tree.energy, tree.leaves) == (-0.5, [0, 1, 2])
    assert [(one.energy, one.leaves) for one in tree.inner] == [(-4.0, [0]), (-1.0, [1, 2])]
    assert (lone.energy, lone.leaves) == (-1.5, [3])


def test_a_network_shows_its_saddles(tmp_path: FilePath) -> None:
    found = Network(
        system=SystemSpec(cluster="Ar6"),
        potential=LennardJones(),
        starts=4,
        searches=6,
        force_calls=200,
        rounds=1,
        patience=1,
    ).run(Recorder(folder=tmp_path))
    summary = found.summary()
    shown = cards(summary)
    assert shown["minima"][0] == len(found.minima) and shown["transition states"][0] == len(found.saddles) > 0
    assert shown["lowest energy"][0] == f"{summary['best_energy']:.6f}"
    assert summary["headline"].startswith(f"{len(found.minima)} minim")
    assert len(summary.tables[0].rows) == len(found.saddles)
    assert summary.reached is found.complete
    assert files(summary) == (["disconnectivity.svg"] if len(found.minima) > 1 else [])
    assert all((tmp_path / file).exists() for file in files(summary))


def test_a_contest_has_intervals_in_one_cell() -> None:
    row: dict[str, Any] = {"system": "Ar38", "optimizer": "hops", "runs": 20, "hits": 3, "mean": -170.0}
    row |= {
        "min": -173.9,
        "mean_error": 0.2,
        "wall_s": 3.0,
        "force_calls": 9,
        "hit_rate": 0.15,
        "hit_rate_low": 0.05,
    }
    row |= {
        "hit_rate_high": 0.36,
        "calls_to_hit": 391234.0,
        "calls_to_hit_low": 2e5,
        "calls_to_hit_high": 9e5,
    }
    never = row | {"hits": 0, "calls_to_hit": None, "calls_to_hit_high": None}
    without = {
        name: row[name]
        for name in ("system", "optimizer", "runs", "mean", "min", "mean_error", "wall_s", "force_calls")
    }
    summary = ContestResult(20, [row, never, without | {"hits": None}]).summary()
    rows = [list(one) for one in summary.tables[0].rows]
    assert rows[0][2:5] == ["3 of 20", Estimate(15.0, 5.0, 36.0), Estimate(391234.0, 2e5, 9e5)]
    assert rows[1][4] == Estimate(math.inf, 2e5, math.inf)
    assert rows[2][2:5] == [None, None, None]
    assert summary.reached is None and files(summary) == ["energies.svg"]


class Bowl(Task):
    """``(theta - 3)^2``, and numbers of held-out problems that are made up."""

    @property
    def theta(self) -> torch.Tensor:
        return torch.zeros(1, dtype=torch.float64)

    def losses(self, theta: torch.Tensor, epoch: int, seed: int = 0) -> torch.Tensor:
        return ((theta - 3.0) ** 2).sum(-1)

    def named(self, theta: torch.Tensor) -> dict[str, float]:
        return {"step_size": float(theta[0])}

    def evaluate(self, theta: torch.Tensor, seed: int = 0) -> dict[str, float]:
        ratios = {"error_ratio": 0.5, "error_ratio_at_start": 0.64}
        return ratios | {
            "held_out": float(theta[0]),
            "Ar13.mean": -44.0,
            "Ar13.hits": 7.0,
            "Ar38.mean": -170.0,
        }


def test_a_training_shows_what_was_learned_beside_the_start(tmp_path: FilePath) -> None:
    found = MetaTrain(task=Bowl(), trainer=UnrolledGradient(steps=2), epochs=3, evaluate_every=1).run(
        Recorder(folder=tmp_path)
    )
    summary = found.summary()
    shown = cards(summary)
    assert shown["step size"] == (f"{float(found.theta[0]):.4g}", "", "at the start 0")
    assert shown["loss"][2] == f"in the first epoch {found.history[0]['loss']:.4g}"
    assert shown["error ratio"] == ("0.5", "", "at the start 0.64")
    assert shown["held-out loss"][2] == f"at the first look {found.history[0]['held_out']:.4g}"
    assert shown["held-out hits"][0] == 7 and shown["epochs"] == (3, "", "")
    learned, problems = summary.tables
    assert [list(row) for row in learned.rows] == [["step size", 0.0, float(found.theta[0])]]
    assert [list(row) for row in problems.rows] == [["Ar13", -44.0, 7.0], ["Ar38", -170.0, None]]
    assert (tmp_path / "training.svg").exists() and files(summary) == ["training.svg"]


def test_a_training_shows_where_it_began_though_that_file_has_gone(tmp_path: FilePath) -> None:
    first = MetaTrain(task=Bowl(), trainer=UnrolledGradient(steps=1), epochs=1)
    began = first.run(Recorder(folder=tmp_path)).theta
    file = tmp_path / "theta.safetensors"
    found = first.replace(theta=str(file)).run(Recorder())
    file.unlink()
    summary = found.summary()
    assert cards(summary)["step size"][2] == f"at the start {float(began[0]):.4g}"
    assert summary.tables[0].rows[0][1] == float(began[0])

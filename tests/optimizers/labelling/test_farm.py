"""Labels through executors: of the standard library, and of Parsl where it is installed."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from ase.build import bulk

from mlopt.core import InputError, MloptError, Systems
from mlopt.optimizers.labelling import Farm, Ledger, labelled
from mlopt.optimizers.labelling.identity import settings_of
from mlopt.potentials import AsePotential

EMT = AsePotential(calculator="emt")


def copper(count: int) -> Systems:
    images = []
    for seed in range(count):
        images.append(bulk("Cu", cubic=True))
        images[-1].rattle(0.1, seed=seed)
    return Systems.from_atoms(images)


def check(farm: Farm, path: Path, count: int = 5) -> None:
    with Ledger(path) as ledger:
        found = labelled(ledger, farm, copper(count))
        counts = ledger.counts()[0]
    expected = EMT.evaluate(copper(count), stress=True)
    assert torch.equal(found.energy, expected.energy)
    assert torch.equal(found.force, expected.force) and torch.equal(found.stress, expected.stress)
    assert found.source[0] == "the calculator 'emt'" and counts.done == count and counts.seconds > 0.0


@pytest.mark.slow
def test_any_executor_will_do(tmp_path: Path) -> None:
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as executor:
        check(Farm.through(executor, potential=EMT, workers=2), tmp_path / "labels.db")


def test_jobs_that_fail_are_failures_with_a_reason(tmp_path: Path) -> None:
    class Broken(ThreadPoolExecutor):
        def submit(self, function, *arguments):  # type: ignore[no-untyped-def]
            return super().submit(lambda: 1 / 0)

    with Broken(1) as executor, Ledger(tmp_path / "labels.db") as ledger:
        found = labelled(ledger, Farm.through(executor, potential=EMT), copper(2))
    assert found.source == ("its job has failed (ZeroDivisionError: division by zero)",) * 2
    executor.shutdown()
    with pytest.raises(MloptError, match=r"farm: no label can be submitted \(RuntimeError"):
        Farm.through(executor, potential=EMT).label(copper(1))


@pytest.mark.slow
def test_two_workers_of_parsl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("parsl")
    monkeypatch.chdir(tmp_path)
    check(Farm(potential=EMT, workers=2, scratch=str(tmp_path)), tmp_path / "labels.db")
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith("labels.db")] == []


def test_parsl_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "parsl", None)
    with pytest.raises(InputError, match=r"Parsl is not installed: `pip install mlopt-optimizers\[farm\]`"):
        Farm(potential=EMT).label(copper(1))
    assert len(Farm(potential=EMT).label(copper(1).select([]))) == 0


# Parsl leaves sockets open when it looks for the addresses of a machine
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_job_of_slurm_is_described() -> None:
    pytest.importorskip("parsl")
    farm = Farm(potential=EMT, provider="slurm", partition="short", options=["--mem=8G"], jobs=3, workers=4)
    (executor,) = farm._config("/tmp").executors
    assert (executor.provider.partition, executor.provider.max_blocks) == ("short", 3)
    assert (
        executor.provider.scheduler_options.startswith("#SBATCH --mem=8G\n")
        and executor.max_workers_per_node == 4
    )
    for option in ("--mem=8G\nrm -rf x", "rm", "--mem=$(x)"):
        with pytest.raises(ValueError, match="options"):
            Farm(potential=EMT, options=[option])
    assert settings_of(farm) == settings_of(Farm(potential=EMT))

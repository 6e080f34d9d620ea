"""Labels from worker processes: the contract, every way in which a calculator can fail, and what is left behind."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from wild_calculators import Wild

from mlopt.core import InputError, Systems
from mlopt.core.files.atomic import process_is_alive
from mlopt.core.plugins import registry
from mlopt.core.runs.experiment import Preempted
from mlopt.core.testing import check_labeller
from mlopt.optimizers.labelling import CalculatorLabeller, Ledger, labelled
from mlopt.optimizers.labelling.pool import remove_abandoned
from mlopt.potentials import AsePotential


def structures(*ways: str) -> Systems:
    images = []
    for index, way in enumerate(ways):
        positions = np.random.default_rng(index).normal(size=(4, 3))
        images.append(Atoms("Ar4", positions, tags=[Wild.WAYS.index(way), 0, 0, 0]))
    return Systems.from_atoms(images)


def wild(tmp_path: Path, **settings: object) -> CalculatorLabeller:
    return CalculatorLabeller(potential=AsePotential.wrap(Wild(str(tmp_path / "notes"))), **settings)


def notes(tmp_path: Path) -> list[list[str]]:
    return [line.split() for line in (tmp_path / "notes").read_text().splitlines()]


@pytest.mark.slow
def test_contract_and_stress() -> None:
    images = [bulk("Cu", cubic=True), bulk("Cu"), molecule("H2O")]
    for seed, one in enumerate(images):
        one.rattle(0.05, seed=seed)
    systems = Systems.from_atoms(images)
    emt = AsePotential(calculator="emt")
    labeller = registry.load("labeller", "calculator")(
        potential={"name": "ase", "calculator": "emt"}, workers=2
    )
    check_labeller(labeller, systems)
    found = labeller.label(systems)
    expected = emt.evaluate(systems, stress=True)
    assert torch.equal(found.energy, expected.energy) and torch.equal(found.force, expected.force)
    assert torch.equal(found.stress[:2], expected.stress[:2]) and found.with_stress.tolist() == [
        True,
        True,
        False,
    ]


def test_a_crash_is_that_of_one_structure(tmp_path: Path) -> None:
    found = wild(tmp_path, attempts=1).label(structures("raise", "well", "exit"))
    assert found.with_energy.tolist() == [False, True, False]
    assert found.source[0] == "RuntimeError: the cycle has not converged; last output: iteration 7 of raise"
    assert found.source[2] == "its process left with exit code 3; last output: iteration 7 of exit"
    assert len({line[1] for line in notes(tmp_path)}) == 1, "a worker goes on after an exception"
    assert not any(Path(line[2]).exists() for line in notes(tmp_path)), "temporary folders are removed"


@pytest.mark.slow
def test_every_failure_is_that_of_one_structure_and_says_why(tmp_path: Path) -> None:
    ways = ["raise", "exit", "well", "kill", "segfault", "hang", "nan", "unconverged", "once", "well"]
    labeller = wild(tmp_path, workers=2, seconds=2.0, scratch=str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    with Ledger(tmp_path / "labels.db") as ledger:
        found = labelled(ledger, labeller, structures(*ways))
    reasons = dict(zip(ways, found.source, strict=True))
    assert found.with_energy.tolist() == [way in ("well", "once") for way in ways]
    for way, said in {
        "raise": "RuntimeError: the cycle has not converged; last output: iteration 7 of raise; see ",
        "exit": "its process left with exit code 3; last output: iteration 7 of exit",
        "kill": "its process was ended by SIGKILL; last output: iteration 7 of kill",
        "segfault": "its process was ended by SIGSEGV",
        "hang": "it took longer than 2 s (`seconds`) and was ended; last output: iteration 7 of hang",
        "nan": "the calculator 'Wild' gives no finite energy and force",
        "unconverged": "a bad result: the calculator has not converged",
    }.items():
        assert reasons[way].startswith(said), way
    tried = [line[0] for line in notes(tmp_path)]
    assert {way: tried.count(way) for way in set(tried)} == dict.fromkeys(ways, 2), "and each is tried twice"
    folders = [line[2] for line in notes(tmp_path)]
    assert len(set(folders)) == len(folders), "each in a folder of its own"
    kept = {Path(line[2]).name[-8:] for line in notes(tmp_path) if line[0] not in ("well", "once")}
    left = {path.name[-8:] for path in (tmp_path / "scratch").glob("failed-label-*")}
    assert kept <= left and len(left) == len(kept) + 1, "the folders of failures stay, one of them of `once`"
    assert len(left) == len(list((tmp_path / "scratch").iterdir()))
    assert all(
        Path(reason.rpartition("; see ")[2]).is_dir() for reason in reasons.values() if "; see" in reason
    )
    assert all(line[3] == "1" for line in notes(tmp_path)), "threads"


@pytest.mark.slow
def test_memory_is_limited(tmp_path: Path) -> None:
    labeller = wild(tmp_path, memory=1.0, attempts=1)
    found = labeller.label(structures("memory", "well"))
    assert found.with_energy.tolist() == [False, True]
    assert "GiB, more than 1 (`memory`), and was ended" in found.source[0]


def test_a_pause_ends_workers_and_their_programs(tmp_path: Path) -> None:
    labeller = wild(tmp_path)

    def pause() -> bool:
        return (tmp_path / "notes").exists() and "started" in (tmp_path / "notes").read_text()

    with Ledger(tmp_path / "labels.db") as ledger:
        with pytest.raises(Preempted):
            labelled(ledger, labeller, structures("well", "child", "well"), pause=pause)
        assert (ledger.counts()[0].done, ledger.counts()[0].claimed) == (1, 0)
    for line in notes(tmp_path):
        assert gone(int(line[1])), line


def gone(pid: int) -> bool:
    """Whether a process ends soon; one that is dead and not waited for counts as gone."""
    for _ in range(100):
        if not process_is_alive(pid):
            return True
        if ") Z" in Path(f"/proc/{pid}/stat").read_text():
            return True
        time.sleep(0.05)
    return False


SCRIPT = """
from pathlib import Path
import sys
from test_calculator_labeller import structures, wild
wild(Path(sys.argv[1])).label(structures("child"))
"""


@pytest.mark.slow
def test_workers_and_their_programs_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    paths = [str(Path(__file__).parent), *sys.path]
    script = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    )
    while not ((tmp_path / "notes").exists() and "started" in (tmp_path / "notes").read_text()):
        assert script.poll() is None
        time.sleep(0.05)
    script.send_signal(signal.SIGKILL)
    script.wait()
    pids = [int(line[1]) for line in notes(tmp_path)]
    assert len(pids) == 2 and all(gone(pid) for pid in pids)


def test_folders_of_killed_processes_are_removed(tmp_path: Path) -> None:
    host = socket.gethostname()
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    names = {
        f"mlopt-label-{host}-{child.pid}-abcd": False,
        f"mlopt-worker-{host}-{child.pid}-abcd": False,
        f"mlopt-label-{host}-{os.getpid()}-abcd": True,
        f"mlopt-label-elsewhere-{child.pid}-abcd": True,
        f"failed-label-{host}-{child.pid}-abcd": True,
    }
    for name in names:
        (tmp_path / name).mkdir()
    remove_abandoned(tmp_path)
    assert {name: (tmp_path / name).exists() for name in names} == names


def test_what_cannot_be_sent_is_refused(tmp_path: Path) -> None:
    class Local(Wild):
        pass

    potential = AsePotential.wrap(Local(str(tmp_path / "notes")))
    with pytest.raises(
        InputError, match=r"'Local' cannot be sent to a worker process: .*Define its class in a module"
    ):
        CalculatorLabeller(potential=potential).label(structures("well"))


def test_settings_of_the_pool_make_no_other_labels(tmp_path: Path) -> None:
    from mlopt.optimizers.labelling.identity import settings_of

    labeller = CalculatorLabeller(potential=AsePotential(calculator="emt"))
    other = labeller.replace(workers=4, seconds=3.0, memory=1.0, threads=2, scratch="/tmp", attempts=5)
    assert settings_of(labeller) == settings_of(other)


def test_xtb(tmp_path: Path) -> None:
    pytest.importorskip("tblite")
    labeller = CalculatorLabeller(
        potential=AsePotential(calculator="tblite", parameters={"method": "GFN2-xTB"}), seconds=60.0
    )
    water, broken = molecule("H2O"), molecule("H2O")
    broken.positions[:] = broken.positions[0]
    with Ledger(tmp_path / "labels.db") as ledger:
        found = labelled(ledger, labeller, Systems.from_atoms([water, broken]))
    assert found.energy[0].item() == pytest.approx(-5.070322 * 27.211386, abs=0.01)
    assert found.with_energy.tolist() == [True, False]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pw.x") is None, reason="needs Quantum ESPRESSO")
def test_espresso(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forces, and the slope of the energy along one displacement."""
    if not (pseudo := Path("/usr/share/espresso/pseudo")).exists():
        pytest.skip("needs the pseudopotentials of Debian's quantum-espresso-data")
    (tmp_path / "ase.ini").write_text(f"[espresso]\ncommand = pw.x\npseudo_dir = {pseudo}\n")
    monkeypatch.setenv("ASE_CONFIG_PATH", str(tmp_path / "ase.ini"))
    control = {"tprnfor": True, "tstress": True}
    settings = {"system": {"ecutwfc": 12}, "electrons": {"conv_thr": 1e-10}, "control": control}
    parameters = {
        "pseudopotentials": {"Si": "Si.pz-vbc.UPF"},
        "input_data": settings,
        "kpts": [2, 2, 2],
    }
    labeller = CalculatorLabeller(potential=AsePotential(calculator="espresso", parameters=parameters))
    images = []
    for shift in (0.1, 0.11, 0.09):
        atoms = bulk("Si")
        atoms.positions[0, 0] += shift
        images.append(atoms)
    with Ledger(tmp_path / "labels.db") as ledger:
        found = labelled(ledger, labeller, Systems.from_atoms(images))
    assert found.with_energy.all() and found.with_stress.all()
    slope = float(found.energy[1] - found.energy[2]) / 0.02
    assert float(found.force[0, 0]) == pytest.approx(-slope, rel=0.01)
    assert float(found.force[0, 0]) < -0.5

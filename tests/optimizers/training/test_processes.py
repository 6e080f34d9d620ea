"""One training on several processes: the same weights on any number of them, and faults that are named.

Most of these start `torchrun`, which takes seconds.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from mlopt.core.errors import InputError, MloptError
from mlopt.core.runs import processes as ranks
from mlopt.core.runs.experiment import Preempted
from mlopt.optimizers.experiments.meta_train.experiment import MetaTrain

PROGRAM = Path(__file__).with_name("ranks_program.py")
TRAINERS = ["es", "esmc", "ga", "pes"]
MINUTE = 120


def start(arguments: Sequence[object], processes: int, *launch: str) -> subprocess.Popen[str]:
    """The program on so many processes of torchrun."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    command = [*torchrun, *(launch or ["--standalone"]), str(PROGRAM), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def run(arguments: Sequence[object], processes: int, code: int = 0) -> str:
    started = start(arguments, processes)
    output, _ = started.communicate(timeout=MINUTE)
    assert started.returncode == code, output
    return output


def the_program() -> Any:
    """The program as a module of this process."""
    spec = importlib.util.spec_from_file_location("ranks_program", PROGRAM)
    assert spec is not None and spec.loader is not None
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    return program


def found(folder: Path, rank: int = 0) -> Any:
    """theta and history."""
    return json.loads((folder / f"theta-{rank}.json").read_text())[:2]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one process comes to, by trainer."""
    folder, program = tmp_path_factory.mktemp("alone"), the_program()
    for name in TRAINERS:
        program.main(folder / name, name)
    return {name: found(folder / name) for name in TRAINERS}


def test_two_ranks_are_one(tmp_path: Path, alone: dict[str, Any]) -> None:
    run([tmp_path, f"trainer={','.join(TRAINERS)}", "ranks=2"], 2)
    for name in TRAINERS:
        assert found(tmp_path / name) == found(tmp_path / name, 1) == alone[name]
        assert len(alone[name][1]) == 4 and "held_out" in alone[name][1][-1]
    assert len({str(alone[name][0]) for name in TRAINERS}) == 4


@pytest.mark.slow
def test_three_ranks_are_one(tmp_path: Path, alone: dict[str, Any]) -> None:
    run([tmp_path, f"trainer={','.join(TRAINERS)}"], 3)
    assert {name: found(tmp_path / name) for name in TRAINERS} == alone


@pytest.mark.slow
def test_two_nodes_are_one(tmp_path: Path, alone: dict[str, Any]) -> None:
    """Two launchers that meet on the loopback device, with one process and with two."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = [
        start(
            [tmp_path, "trainer=esmc,pes"], 1, "--nnodes", "2", "--node-rank", str(node), "--master-addr",
            "127.0.0.1", "--master-port", str(port),
        )
        for node in (0, 1)
    ]  # fmt: skip
    for one in started:
        output, _ = one.communicate(timeout=MINUTE)
        assert one.returncode == 0, output
    assert {name: found(tmp_path / name) for name in ("esmc", "pes")} == {
        n: alone[n] for n in ("esmc", "pes")
    }


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_rank_resumes(tmp_path: Path, alone: dict[str, Any], victim: int) -> None:
    """From the checkpoint, and with another number of ranks."""
    run([tmp_path, "trainer=pes", "kill=1" if victim else "kill=0"], 2, code=1)
    assert not list((tmp_path / "pes").glob("theta-*"))
    run([tmp_path, "trainer=pes"], 3 if victim else 2)
    assert found(tmp_path / "pes") == alone["pes"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_kills_at_random_instants(tmp_path: Path) -> None:
    """Twenty SIGKILLs: the training goes on from what is on the disk, and ends with the same bits."""
    program = the_program()
    whole = tmp_path / "whole"
    began = time.monotonic()
    program.main(whole, "esmc", epochs=30)
    length = time.monotonic() - began
    chance, kills, number = random.Random(0), 0, 0
    while kills < 20:
        folder, code = tmp_path / f"run{number}", 1
        number += 1
        while code != 0:
            child = os.fork()
            if child == 0:
                try:
                    program.main(folder, "esmc", epochs=30)
                    os._exit(0)
                finally:
                    os._exit(1)
            if kills < 20:
                time.sleep(chance.uniform(0.0, 0.9 * length))
                os.kill(child, signal.SIGKILL)
                kills += 1
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            assert code in (0, -signal.SIGKILL)
        assert found(folder) == found(whole)


@pytest.mark.slow
def test_a_hung_rank_is_named(tmp_path: Path) -> None:
    run([tmp_path, "hang=1", "timeout=4"], 2, code=1)
    message = (tmp_path / "esmc" / "error-0.txt").read_text()
    assert "rank 1 of 2 did not come to the exchange of losses: ended, or hung for more than 4 s" in message


@pytest.mark.slow
def test_a_rank_that_fails_is_named(tmp_path: Path) -> None:
    output = run([tmp_path, "fail=1"], 2, code=1)
    message = (tmp_path / "esmc" / "error-0.txt").read_text()
    assert message == "rank 1 of 2 failed while computing losses; its own message says why"
    assert "ValueError: this rank has a fault" in output


def test_fewer_ranks_than_asked_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def experiment(wanted: int) -> MetaTrain:
        from mlopt.optimizers.training.ga import GA
        from mlopt.optimizers.training.tasks.band import BandTask
        from mlopt.potentials.spins import Heisenberg, SpinLattice

        model = Heisenberg(lattice=SpinLattice(kind="chain", repeat=[1]), units="reduced")
        return MetaTrain(task=BandTask(model=model, initial={}, final={}), trainer=GA(), ranks=wanted)

    for run_it in (experiment(3).check, experiment(3).run):
        with pytest.raises(
            InputError, match=r"`ranks: 3` asks for 3 processes and there is 1. Start them with"
        ):
            run_it()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match=r"`ranks: 3` asks for 3 processes and there are 2"):
        experiment(3).check()
    ranks.check(2)


def test_work_is_spread_over_blocks() -> None:
    """On one process: every number once, in blocks of the asked size, nested or not."""
    asked: list[int] = []

    def square(index: torch.Tensor) -> torch.Tensor:
        asked.append(len(index))
        return torch.stack([index**2, ranks.share_out(len(index), lambda inner: inner)[:, 0]], 1)

    table = ranks.share_out(7, square, batch=3, columns=2)
    assert asked == [3, 3, 1] and table.dtype == torch.float64
    assert table[:, 0].tolist() == [0, 1, 4, 9, 16, 25, 36] and table[:, 1].tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert ranks.share_out(0, square).shape == (0, 1)


@pytest.mark.parametrize("batch", [None, 1, 2, 5])
@pytest.mark.parametrize("size", [2, 3, 9])
def test_shares_come_back_in_order(monkeypatch: pytest.MonkeyPatch, size: int, batch: int | None) -> None:
    """All ranks one after the other in one process: each computes its own share, together everything once."""
    sent: dict[int, torch.Tensor] = {}
    asked: list[int] = []

    class Here(ranks.Ranks):
        def gather(self, own: torch.Tensor) -> torch.Tensor:
            sent[self.rank] = own
            return torch.stack([sent.get(rank, torch.zeros_like(own)) for rank in range(self.size)])

    def function(index: torch.Tensor) -> torch.Tensor:
        asked.extend(index.tolist())
        assert batch is None or len(index) <= batch
        return index.double() + 0.5

    for rank in range(size):
        monkeypatch.setattr(ranks, "_here", Here(rank, size))
        whole = ranks.share_out(8, function, batch=batch)
    assert sorted(asked) == list(range(8))
    assert whole[:, 0].tolist() == [one + 0.5 for one in range(8)]  # the last rank has all


def test_failures_reach_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    class Here(ranks.Ranks):
        def gather(self, own: torch.Tensor) -> torch.Tensor:
            other = own.clone()
            other[0] = 1.0
            return torch.stack([own, other])

    monkeypatch.setattr(ranks, "_here", Here(0, 2))
    with pytest.raises(MloptError, match="rank 1 of 2 failed while computing losses"):
        ranks.share_out(4, lambda index: index)
    with pytest.raises(ZeroDivisionError):
        ranks.share_out(4, lambda index: index * (1 // 0))
    assert not ranks._here.busy


def test_all_leave_where_one_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal may reach some processes alone; the others have no fault to tell of."""
    told: list[torch.Tensor] = []

    class Here(ranks.Ranks):
        def gather(self, own: torch.Tensor) -> torch.Tensor:
            told.append(own)
            return torch.stack([own, told[0]])

    def leave(index: torch.Tensor) -> torch.Tensor:
        raise Preempted

    monkeypatch.setattr(ranks, "_here", Here(0, 2))
    with pytest.raises(Preempted):
        ranks.share_out(4, leave)
    with pytest.raises(Preempted):
        ranks.share_out(4, lambda index: index)
    assert len(told) == 2 and not ranks._here.busy


def test_processes_that_cannot_meet_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_USE_AGENT_STORE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert not ranks.is_worker()
    with pytest.raises(MloptError, match="could not meet the other 1 ranks"), ranks.joined():
        pass
    monkeypatch.setenv("RANK", "1")
    assert ranks.is_worker()
    assert os.environ["WORLD_SIZE"] == "2" and not torch.distributed.is_initialized()


BAND = """
experiment: meta-train
task:
  name: band
  model:
    name: heisenberg
    lattice: {kind: chain, repeat: [1]}
    units: reduced
    anisotropy: [{axis: [1, 0, 0], k: 1.0}, {axis: [0, 0, 1], k: -2.0}]
  initial: {kind: ferromagnet, direction: [1, 0, 0]}
  final: {kind: ferromagnet, direction: [-1, 0, 0]}
  axis: [0, 0, 1]
  paths: 5
trainer: {name: esmc, population: 4}
epochs: 4
evaluate_every: 4
"""


@pytest.mark.slow
def test_the_command_line_under_torchrun(tmp_path: Path) -> None:
    """Every process runs the command; the first has the directory. In two pieces, as one process in one."""
    (tmp_path / "learn.yaml").write_text(BAND)

    def mlopt(*arguments: str, processes: int = 2) -> int:
        torchrun = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            str(processes),
        ]
        command = [*torchrun, "-m", "mlopt.cli", *arguments, "--quiet"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=MINUTE).returncode

    assert mlopt("run", "learn.yaml", "--out", "whole", processes=1) == 0
    assert (
        mlopt("run", "learn.yaml", "--out", "pieces", "--max-minutes", "1e-6") == 1
    )  # torchrun's code for 75
    status = json.loads((tmp_path / "pieces" / "STATUS.json").read_text())
    assert status["state"] == "preempted"
    assert mlopt("resume", "pieces") == 0
    whole, pieces = (tmp_path / name / "results" for name in ("whole", "pieces"))
    for name in ("theta.safetensors", "history.json"):
        assert (whole / name).read_bytes() == (pieces / name).read_bytes()
    assert json.loads((pieces / "summary.json").read_text())["ranks"] == 2

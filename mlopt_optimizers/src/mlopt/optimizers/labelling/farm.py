"""Labels from many machines: workers behind an executor of `concurrent.futures`, such as Parsl's on a cluster."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeAlias

from pydantic import PrivateAttr, StringConstraints

from mlopt.core.atoms.dataset import Dataset
from mlopt.core.atoms.systems import Systems
from mlopt.core.errors import InputError, MloptError
from mlopt.core.landscapes.potential import Potential
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import setting
from mlopt.core.protocols.labeller import Finished
from mlopt.core.quoting import one_line
from mlopt.optimizers.labelling.calculator import CalculatorLabeller
from mlopt.optimizers.labelling.pool import Limits, Worker

if TYPE_CHECKING:
    from ase import Atoms

#: an option is one word: it is a line of a script that Slurm runs
Option: TypeAlias = Annotated[str, StringConstraints(pattern=r"^--?[\w-]+(=[\w.,:/@%+-]+)?$")]
#: seconds between two looks for labels that are finished
_LOOK = 0.2
#: worker of this process, and the potential and limits that it has
_kept: list[tuple[str, Worker]] = []


class Farm(CalculatorLabeller):
    """Labels of a potential from the nodes of a cluster, through Parsl: ``pip install mlopt-optimizers[farm]``.

    Each label is computed as by the labeller ``calculator``, in a process of its own on its node. In Python any
    executor will do: ``Farm.through(executor, potential=...)``.
    """

    running = CalculatorLabeller.running | {
        "provider",
        "jobs",
        "nodes",
        "walltime",
        "partition",
        "account",
        "options",
    }

    provider: Literal["local", "slurm"] = setting("local", "where jobs run: this machine, or Slurm")
    jobs: int = setting(1, "jobs at once; each has `workers` workers on each of its nodes", ge=1)
    nodes: int = setting(1, "nodes of a job", ge=1)
    walltime: str = setting("01:00:00", "time limit of a job", pattern=r"^\d+:\d\d:\d\d$")
    partition: str | None = setting(None, "Slurm's partition", pattern=r"^[\w.,-]+$")
    account: str | None = setting(None, "account to charge", pattern=r"^[\w.-]+$")
    options: list[Option] = setting([], "further options of sbatch, such as --mem=8G")

    _executor: Executor | None = PrivateAttr(default=None)

    @classmethod
    def through(cls, executor: Executor, **settings: Any) -> Self:
        """Return a farm that uses an executor; the caller shuts that down."""
        made = cls(**settings)
        made._executor = executor
        return made

    def check(self) -> None:
        """Look for Parsl; programs that calculators start need to be on the nodes only.

        Raises:
            InputError: Parsl is not installed.
        """
        if self._executor is None:
            self._parsl()

    def stream(self, systems: Iterable[Systems]) -> Iterator[Finished | None]:
        """See `Labeller.stream`.

        Raises:
            InputError: Parsl is not installed, or the potential refuses a structure.
            MloptError: the jobs cannot be started.
        """
        given = enumerate(one.to("cpu", torch.float64) for one in systems)
        first = next(given, None)
        if first is None:
            return
        with self._open() as executor:
            waiting: dict[Future[tuple[dict[str, Any], float]], tuple[int, Systems]] = {}
            try:
                while True:
                    while len(waiting) < self.jobs * self.nodes * self.workers:
                        chosen, first = first or next(given, None), None
                        if chosen is None:
                            break
                        waiting[self._submit(executor, chosen[1])] = chosen
                    if not waiting:
                        return
                    done, _ = wait(waiting, _LOOK, FIRST_COMPLETED)
                    for one in done:
                        index, system = waiting.pop(one)
                        yield self._named(_finished(index, system, one))
                    if not done:
                        yield None
            finally:
                for one in waiting:
                    one.cancel()

    def _submit(self, executor: Executor, system: Systems) -> Future[tuple[dict[str, Any], float]]:
        limits = Limits(self.seconds, self.memory, self.threads, self.scratch)
        try:
            return executor.submit(compute, self.potential, limits, system.to_atoms()[0])
        except Exception as error:  # whatever an executor raises
            raise MloptError(
                f"farm: no label can be submitted ({type(error).__name__}: {one_line(error, 300)})"
            ) from error

    @staticmethod
    def _parsl() -> tuple[Any, Any]:
        """Return the module and the class of its executor."""
        try:
            import parsl
            from parsl.concurrent import ParslPoolExecutor
        except ImportError as error:
            raise InputError("farm: Parsl is not installed: `pip install mlopt-optimizers[farm]`") from error
        return parsl, ParslPoolExecutor

    @contextmanager
    def _open(self) -> Iterator[Executor]:
        if self._executor is not None:
            yield self._executor
            return
        parsl, executor = self._parsl()
        with tempfile.TemporaryDirectory(prefix="mlopt-farm-", dir=self.scratch) as folder:
            # ranks of torchrun and tests share the machine: nothing is written into the current folder
            flow = parsl.load(self._config(folder))
            try:
                yield executor(dfk=flow)
            finally:
                with contextlib.suppress(Exception):  # what was finished has been told
                    flow.cleanup()
                parsl.clear()

    def _config(self, folder: str) -> Any:
        """Return Parsl's configuration; its own files go to ``folder``."""
        from parsl import providers
        from parsl.config import Config
        from parsl.executors import HighThroughputExecutor

        programs = Path(sys.executable).parent  # Parsl's own, which need not be on the path of this process
        paths = os.pathsep.join(path for path in sys.path if path)
        setup = (
            f"export PATH={shlex.quote(str(programs))}:$PATH "
            f"PYTHONPATH={shlex.quote(paths)} OMP_NUM_THREADS={self.threads}"
        )
        settings: dict[str, Any] = {
            "nodes_per_block": self.nodes, "init_blocks": 1, "max_blocks": self.jobs, "worker_init": setup
        }  # fmt: skip
        make: Any = providers.LocalProvider
        if self.provider == "slurm":
            make = providers.SlurmProvider
            settings |= {
                "partition": self.partition,
                "account": self.account,
                "walltime": self.walltime,
                "exclusive": False,
                "scheduler_options": "\n".join(f"#SBATCH {one}" for one in self.options),
            }
        executor = HighThroughputExecutor(
            label="labels",
            provider=make(**settings),
            interchange_launch_cmd=[str(programs / "interchange.py")],
            max_workers_per_node=self.workers,
            cores_per_worker=1e-6,  # `workers` decides
            working_dir=folder,
            worker_logdir_root=folder,
            address="127.0.0.1" if self.provider == "local" else None,
        )
        return Config(executors=[executor], run_dir=folder, initialize_logging=False, usage_tracking=0)


def compute(potential: Potential, limits: Limits, atoms: Atoms) -> tuple[dict[str, Any], float]:
    """Compute one label in a worker process of this machine; called on the nodes.

    Return what `mlopt.optimizers.labelling.worker` returns, with ``reason`` or ``refused`` for a failure, and the
    seconds. The worker is kept for the next label.
    """
    key = repr((type(potential), potential.config(), limits))
    if _kept and (_kept[0][0] != key or _kept[0][1].ended):
        _kept.pop()[1].end()
    if not _kept:
        _kept.append((key, Worker(potential, limits)))
    worker = _kept[0][1]
    system = Systems.from_atoms(atoms)
    worker.give(0, system)
    done = None
    try:
        while done is None:
            worker.connection.poll(0.1)
            done = worker.outcome()
    except InputError as error:
        worker.abandon()
        return {"refused": str(error)}, 0.0
    data = done.data
    if not bool(data.with_energy[0]):
        return {"reason": data.source[0]}, done.seconds
    stress = data.stress[0].numpy() if bool(data.with_stress[0]) else None
    return {"energy": float(data.energy[0]), "force": data.force.numpy(), "stress": stress}, done.seconds


def _finished(index: int, system: Systems, done: Future[tuple[dict[str, Any], float]]) -> Finished:
    began = time.monotonic()
    try:
        found, seconds = done.result()
    except Exception as error:  # the node has gone, or what it returned cannot be read
        reason = f"its job has failed ({type(error).__name__}: {one_line(error, 300)})"
        return Finished((index,), Dataset(system, source=(reason,)), time.monotonic() - began)
    if "refused" in found:
        raise InputError(found["refused"])
    if "reason" in found:
        return Finished((index,), Dataset(system, source=(found["reason"],)), seconds)
    stress = found["stress"]
    data = Dataset(
        system,
        torch.tensor([found["energy"]], dtype=torch.float64),
        torch.from_numpy(found["force"].copy()),
        None if stress is None else torch.from_numpy(stress.copy())[None],  # type: ignore[arg-type]
    )
    return Finished((index,), data, seconds)

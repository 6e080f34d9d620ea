"""Labels from a calculator in worker processes, which may fail in any way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Annotated

from mlopt.core.atoms.dataset import Dataset
from mlopt.core.atoms.systems import Systems
from mlopt.core.landscapes.potential import Potential
from mlopt.core.lazy import torch
from mlopt.core.plugins.input_file import AbsolutePath
from mlopt.core.plugins.plugin import FromRegistry, setting
from mlopt.core.protocols.labeller import Finished, Labeller
from mlopt.optimizers.labelling.pool import Limits, Pool


class CalculatorLabeller(Labeller):
    """Labels of a potential, above all of an ASE calculator, from worker processes with one label each at a time.

    Each label is computed in an empty folder. A calculator that raises, crashes, hangs or takes too much memory fails
    for that structure alone. The reason quotes the last lines that it has printed.
    """

    running = Labeller.running | {"workers", "seconds", "memory", "threads", "scratch"}

    potential: Annotated[Potential, FromRegistry("potential")] = setting(
        ..., "potential that computes the labels, such as {name: ase, calculator: tblite}"
    )
    workers: int = setting(1, "labels that are computed at once", ge=1)
    threads: int = setting(1, "threads of each worker", ge=1)
    seconds: float | None = setting(None, "time limit of a label; none: no limit", unit="s", gt=0)
    memory: float | None = setting(
        None, "memory limit of a worker with the programs that it starts, on Linux", unit="GiB", gt=0
    )
    scratch: AbsolutePath | None = setting(
        None, "folder for the folders of labels, where those of failures stay; none: temporary ones"
    )
    attempts: int = setting(2, "times that a structure is tried before it counts as failed", ge=1)

    def check(self) -> None:
        """See `Labeller.check`.

        Raises:
            InputError: a program or package that the potential needs is missing.
        """
        self.potential.present()

    def label(self, systems: Systems) -> Dataset:
        """See `Labeller.label`.

        Raises:
            InputError: the potential refuses the structures, or cannot be sent to another process.
            MloptError: no worker can be started.
        """
        systems = systems.to(dtype=torch.float64)
        parts = {done.indices[0]: done.data for done in self.stream(systems) if done is not None}
        if not parts:
            return Dataset(systems)
        return replace(Dataset.concatenate([parts[index] for index in range(len(systems))]), systems=systems)

    def stream(self, systems: Iterable[Systems]) -> Iterator[Finished | None]:
        """See `Labeller.stream`; closing it ends the workers.

        Raises:
            InputError: as `label`.
            MloptError: as `label`.
        """
        limits = Limits(self.seconds, self.memory, self.threads, self.scratch)
        with Pool(self.potential, self.workers, limits) as pool:
            for done in pool.stream(one.to("cpu", torch.float64) for one in systems):
                yield done if done is None else self._named(done)

    def _named(self, done: Finished) -> Finished:
        """Name the source of a label that has none."""
        source = done.data.source[0] or self.potential.giver
        return replace(done, data=replace(done.data, source=(source,)))

"""Many inner runs as few batches, each problem under its own theta, for the task `rollout`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mlopt.core.atoms.systems import Systems
from mlopt.core.driver.driver import Driver
from mlopt.core.driver.engine import EngineName
from mlopt.core.driver.progress import Outcome, Progress
from mlopt.core.driver.stop import Reason, Stop
from mlopt.core.landscapes.landscape import AtomsLandscape
from mlopt.core.lazy import torch
from mlopt.core.protocols.optimizer import Optimizer
from mlopt.core.runs.experiment import Context, Preempted
from mlopt.optimizers.training.tasks.settings import RolloutCase


@dataclass
class Batch:
    """Runs under one potential.

    index (m,) int64: the numbers of these runs among all.
    x (n_rows, d), key (m,) int64: the starts of the runs, and the keys of their random numbers.
    progress: the progress after the steps taken so far.
    reached: the tally of each run there, including the last point.
    """

    index: torch.Tensor
    landscape: AtomsLandscape
    x: torch.Tensor
    key: torch.Tensor
    progress: Progress | None = None
    reached: Outcome | None = None

    def carry(
        self, optimizer: Optimizer, steps: int, engine: EngineName, lowest: bool, context: Context
    ) -> None:
        """Take ``steps`` steps from where the runs are. optimizer: for all problems of the batch.

        Raises:
            Preempted: as `carried`.
        """
        until = steps + (0 if self.progress is None else self.progress.calls)
        # the point after the last step is evaluated as well, and nobody steps on from there
        driver = Driver(self.landscape, optimizer, Stop(until + 1), keep=1, engine=engine, lowest=lowest)
        if self.progress is None:
            self.progress = driver.begin(self.x, self.key)
        carried(driver, self.progress, context, until)
        self.reached = driver.advance(self.progress.copy()).outcome

    def energy(self) -> torch.Tensor:
        """Return energies (m,) float64: the lowest or the last, as `carry` was told; infinite if not finite."""
        if self.progress is None or self.reached is None:
            raise ValueError("no step has been taken")
        found = self.reached.tally.energy
        if not self.progress.lowest:  # the lowest was put aside, whatever came after
            found = torch.where(self.reached.reason == Reason.NON_FINITE.code, torch.inf, found)
        found = found.to("cpu", torch.float64)
        return torch.where(torch.isfinite(found), found, torch.inf)


def carried(driver: Driver, progress: Progress, context: Context, until: int | None = None) -> Progress:
    """Advance as `Driver.advance` does, but first compile a kernel in a way that can be interrupted.

    Raises:
        Preempted: ``context`` asked to stop before the first step.
    """
    driver.announce = context.log
    driver.prepare(progress, lambda: context.interrupted)
    if context.interrupted:
        raise Preempted
    return driver.advance(progress, until=until)


def batches(
    members: Sequence[RolloutCase],
    member: torch.Tensor,
    key: torch.Tensor,
    device: torch.device,
    dtype: torch.dtype,
) -> list[Batch]:
    """Return runs of the members ``member (m,)`` int64 with the keys ``key (m,)`` int64, one batch a potential.

    Runs with equal keys and members begin at the same point. Within a batch runs of one member stand together.
    """
    made = []
    for kinds in _by_potential(members):
        index = torch.nonzero(torch.isin(member, torch.tensor(kinds))).flatten()
        if not index.numel():
            continue
        index = index[member[index].argsort(stable=True)]
        systems, place = _started(members, member[index], key[index])
        drawn = systems.select(place)
        # float64 until here, so that float32 and float64 begin at the same point
        drawn = drawn.to(device, dtype)
        landscape = AtomsLandscape(drawn, members[kinds[0]].potential)
        made.append(Batch(index, landscape, drawn.pos, key[index].to(device)))
    return made


def _by_potential(members: Sequence[RolloutCase]) -> list[list[int]]:
    """Return the numbers of members, grouped by potential."""
    groups: list[list[int]] = []
    for number, one in enumerate(members):
        same = [group for group in groups if members[group[0]].potential == one.potential]
        if same:
            same[0].append(number)
        else:
            groups.append([number])
    return groups


def _started(
    members: Sequence[RolloutCase], member: torch.Tensor, key: torch.Tensor
) -> tuple[Systems, torch.Tensor]:
    """Return every distinct start once, and the number (m,) of its start for each run. All thetas share a start."""
    parts, place, before = [], torch.empty_like(member), 0
    for number in torch.unique(member).tolist():
        own = torch.nonzero(member == number).flatten()
        keys, inverse = torch.unique(key[own], return_inverse=True)
        parts.append(members[number].begun(keys))
        place[own] = before + inverse
        before += len(keys)
    return Systems.concatenate(parts), place


MetaLoss = Literal["final", "best"]

"""The result of a minimisation: one outcome for every problem, as tensors, as a table, as ASE atoms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlopt.core.driver.progress import Progress
from mlopt.core.driver.stop import Reason, Stop
from mlopt.core.errors import InputError
from mlopt.core.landscapes.landscape import AtomsLandscape, Landscape
from mlopt.core.lazy import torch

if TYPE_CHECKING:
    from ase import Atoms


@dataclass(frozen=True)
class Result:
    """The outcome of every problem.

    energy (n,), x (n_rows, d): energy and point, the lowest or the last as `Driver` says.
    fmax (n,): largest row force there.
    reason: why each problem ended.
    calls (n,) int64: force calls used.
    first_hit (n,) int64: force calls until the target was reached, -1 where it was not.
    quenches (n,) int64: minima that a search arrived at.
    pool_energy (n, keep), pool_x (n_rows, keep, d): the lowest distinct minima of each problem, as loosely quenched as
    the search left them. An infinite energy marks an empty place.
    pool_calls (n, keep) int64: the force calls after which these minima were found.
    trace_calls (t,), trace_energy (t, n): numbers of calls, and the energies so far at each of them.
    """

    landscape: Landscape
    energy: torch.Tensor
    x: torch.Tensor
    fmax: torch.Tensor
    reason: list[Reason]
    calls: torch.Tensor
    first_hit: torch.Tensor
    quenches: torch.Tensor
    pool_energy: torch.Tensor
    pool_x: torch.Tensor
    pool_calls: torch.Tensor
    trace_calls: torch.Tensor
    trace_energy: torch.Tensor

    @classmethod
    def of(cls, landscape: Landscape, progress: Progress, stop: Stop) -> Result:
        """Return the result so far of a minimisation that is in flight or has ended."""
        outcome = progress.snapshot()
        tally, reasons = outcome.tally, list(Reason)
        n = landscape.segments.n_problems
        trace = torch.stack(progress.trace_energy) if progress.trace_energy else tally.energy.new_zeros(0, n)
        return cls(
            landscape=landscape,
            energy=tally.energy,
            x=tally.x,
            fmax=tally.force2.sqrt(),
            reason=[reasons[code] for code in outcome.reason.tolist()],
            calls=outcome.calls,
            first_hit=tally.first_hit,
            quenches=tally.quenches,
            pool_energy=tally.pool_energy,
            pool_x=tally.pool_x,
            pool_calls=tally.pool_calls,
            trace_calls=torch.tensor(progress.trace_calls, dtype=torch.int64),
            trace_energy=trace,
        )

    def __len__(self) -> int:
        return self.energy.numel()

    @property
    def converged(self) -> torch.Tensor:
        """The problems (n,) bool that ended because the force fell below the threshold."""
        return torch.tensor([reason is Reason.CONVERGED for reason in self.reason])

    @property
    def failed(self) -> torch.Tensor:
        """The problems (n,) bool that ended by a failure, such as a non-finite energy or force."""
        return torch.tensor([reason.is_failure for reason in self.reason])

    @property
    def best(self) -> int:
        """The index of the problem with the lowest energy among those with finite energy and force."""
        return int(torch.where(torch.isfinite(self.energy + self.fmax), self.energy, torch.inf).argmin())

    def point(self, index: int) -> torch.Tensor:
        """Return the point (rows of that problem, d) of one problem."""
        ptr = self.landscape.segments.ptr
        return self.x[int(ptr[index]) : int(ptr[index + 1])]

    def table(self) -> list[dict[str, Any]]:
        """Return one row a problem, ready for ``pandas.DataFrame``."""
        columns = {
            "energy": self.energy.tolist(),
            "fmax": self.fmax.tolist(),
            "calls": self.calls.tolist(),
            "first_hit": [None if calls < 0 else calls for calls in self.first_hit.tolist()],
            "quenches": self.quenches.tolist(),
            "reason": [reason.name.lower().replace("_", "-") for reason in self.reason],
        }
        return [
            {"index": i} | {name: column[i] for name, column in columns.items()} for i in range(len(self))
        ]

    def atoms(self) -> list[Atoms]:
        """Return the final structures. Each has its energy and largest force in ``info``.

        Raises:
            InputError: the landscape is not one of atoms.
        """
        if not isinstance(self.landscape, AtomsLandscape):
            raise InputError("this result is not about atoms; its points are in `x`")
        structures = self.landscape.systems.with_pos(self.x).to_atoms()
        for atoms, row in zip(structures, self.table(), strict=True):
            atoms.info.update(
                {key: value for key, value in row.items() if value is not None and key != "index"}
            )
        return structures

"""What one evaluation of a landscape or a potential returns."""

from __future__ import annotations

from dataclasses import dataclass

from mlopt.core.lazy import torch


@dataclass(frozen=True)
class Evaluation:
    """Energy and force of every problem at one point.

    energy: (n_problems,).
    force: (n_rows, d); minus the gradient where the landscape is conservative.
    row_energy: (n_rows,) the share of each row where the potential can tell (sums to ``energy``), else None.
    stress: (n_problems, 3, 3) dE/dstrain / volume, eV/angstrom^3 (or reduced), only where asked for.
    """

    energy: torch.Tensor
    force: torch.Tensor
    row_energy: torch.Tensor | None = None
    stress: torch.Tensor | None = None

    def select(self, problems: torch.Tensor, rows: torch.Tensor) -> Evaluation:
        """Keep the given problems and the rows that they own."""
        return Evaluation(
            self.energy[problems],
            self.force[rows],
            None if self.row_energy is None else self.row_energy[rows],
            None if self.stress is None else self.stress[problems],
        )

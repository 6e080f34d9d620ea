"""Energy and force of a batch at one point, and the checks that refuse an evaluation that does not fit its point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlopt.core.errors import PluginError
from mlopt.core.lazy import torch

_OPTIONAL = ("row_energy", "stress", "zero_width", "energy_spread", "force_spread")


@dataclass(frozen=True)
class Evaluation:
    """Energy and force of every problem at one point.

    energy: (n_problems,), in the potential's unit of energy.
    force: (n_rows, d); minus the gradient of the energy where the landscape is conservative.
    row_energy: (n_rows,) energy of each row, which sums to ``energy``; None where the potential has no such partition.
    stress: (n_problems, 3, 3) dE/dstrain / volume, eV/angstrom^3 or reduced; None unless it was asked for. NaN for
        systems without three lattice vectors.
    zero_width: (n_problems,) energy extrapolated to zero electronic smearing, which some calculators give besides the
        energy that is consistent with their forces. None where there is none. No optimizer and no check reads it.
    energy_spread: (n_problems,) standard deviation of the energy over the members of a committee; else None.
    force_spread: (n_rows,) root mean square length of the members' deviations from ``force``; else None.
    """

    energy: torch.Tensor
    force: torch.Tensor
    row_energy: torch.Tensor | None = None
    stress: torch.Tensor | None = None
    zero_width: torch.Tensor | None = None
    energy_spread: torch.Tensor | None = None
    force_spread: torch.Tensor | None = None

    @classmethod
    def mean(cls, members: Sequence[Evaluation]) -> Evaluation:
        """Return the means of what every member of a committee gives, and the `spread` of energies and forces."""

        def mean_of(name: str) -> torch.Tensor | None:
            told = [value for one in members if (value := getattr(one, name)) is not None]
            return torch.stack(told).mean(0) if len(told) == len(members) else None

        energy = torch.stack([one.energy for one in members]).mean(0)
        force = torch.stack([one.force for one in members]).mean(0)
        off, apart = spread(members)
        return cls(
            energy,
            force,
            mean_of("row_energy"),
            mean_of("stress"),
            energy_spread=off,
            force_spread=apart,
        )

    def select(self, problems: torch.Tensor, rows: torch.Tensor) -> Evaluation:
        """Keep the given problems (k,) and the rows that they own, both int64 indices."""
        return Evaluation(
            self.energy[problems],
            self.force[rows],
            None if self.row_energy is None else self.row_energy[rows],
            None if self.stress is None else self.stress[problems],
            None if self.zero_width is None else self.zero_width[problems],
            None if self.energy_spread is None else self.energy_spread[problems],
            None if self.force_spread is None else self.force_spread[rows],
        )

    def split(self, k: int) -> list[Evaluation]:
        """Return the evaluations of the ``k`` copies of a batch, as `Systems.repeat` lays them out."""
        device = self.energy.device
        problems = torch.arange(len(self.energy), device=device).reshape(k, -1)
        rows = torch.arange(len(self.force), device=device).reshape(k, -1)
        return [self.select(own, atoms) for own, atoms in zip(problems, rows, strict=True)]


def spread(members: Sequence[Evaluation]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``sqrt(<|x_k - <x>|^2>)`` over the members of a committee: of energies (n_problems,) and forces (n_rows,).

    It carries no gradient: where members agree, its slope is infinite.
    """
    with torch.no_grad():
        energy = torch.stack([one.energy for one in members])
        force = torch.stack([one.force for one in members])
        off = (force - force.mean(0)).square().sum(-1)
        return (energy - energy.mean(0)).square().mean(0).sqrt(), off.mean(0).sqrt()


def version(x: torch.Tensor) -> int:
    """Return how often ``x`` was changed in place; for `check_evaluation`."""
    return 0 if x.is_inference() else x._version


def check_evaluation(
    found: Evaluation, x: torch.Tensor, n_problems: int, before: int, giver: str
) -> Evaluation:
    """Return ``found`` if it fits the point ``x (n_rows, d)`` at which it was evaluated.

    before: `version` of ``x`` before the evaluation.
    giver: the name in error messages, such as "the potential Morse".

    Raises:
        PluginError: a field has another shape, dtype or device than it must, or ``x`` was changed in place.
    """
    if version(x) != before:
        raise PluginError(changed(giver))
    shapes = {
        "energy": (n_problems,),
        "force": tuple(x.shape),
        "row_energy": (len(x),),
        "stress": (n_problems, 3, 3),
        "zero_width": (n_problems,),
        "energy_spread": (n_problems,),
        "force_spread": (len(x),),
    }
    for name, shape in shapes.items():
        value = getattr(found, name, None)
        if value is None and name in _OPTIONAL:
            continue
        if (
            not isinstance(value, torch.Tensor)
            or (tuple(value.shape), value.dtype) != (shape, x.dtype)
            or value.device != x.device
        ):
            wanted = f"a tensor of shape {shape}, {x.dtype} on {x.device}, as the positions are"
            raise PluginError(f"{giver} returned as `{name}` {_described(value)}; it must be {wanted}")
    return found


def changed(giver: str) -> str:
    """Return the message about an evaluation that changed its argument in place."""
    return (
        f"{giver} changed the positions in place while it was evaluated; the point would no longer be the one that its "
        f"energy belongs to. Work on a copy, `pos.clone()`"
    )


def _described(value: object) -> str:
    if not isinstance(value, torch.Tensor):
        return "nothing" if value is None else f"an object of type {type(value).__name__}"
    return f"a tensor of shape {tuple(value.shape)}, {value.dtype} on {value.device}"

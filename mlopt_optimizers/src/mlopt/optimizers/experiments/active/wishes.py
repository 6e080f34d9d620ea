"""Structures that walkers ask to have labelled."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mlopt.core.atoms.digest import structure_digest
from mlopt.core.atoms.systems import Systems
from mlopt.core.lazy import torch

#: what a label was computed for
Trigger = Literal["beginning", "stopped", "put aside", "lowest", "polish", "end", "saddle"]
#: triggers of labels on which a walk depends: whole structures, labelled first
DECIDING = ("lowest", "end", "saddle")


@dataclass(frozen=True, eq=False)
class Wish:
    """A structure that a walker asks to have labelled.

    structure: a batch of one.
    calls: force calls of the walker so far.
    grade: grade of the structure, infinite if it has none.
    atom: the walker's atom in the middle of a structure that was cut out; None for a whole structure.
    core (n_atoms,) bool: atoms that have all their neighbours; None for all.
    """

    structure: Systems
    walker: int
    calls: int
    grade: float
    trigger: Trigger
    atom: int | None = None
    core: torch.Tensor | None = None

    def told(self) -> dict[str, Any]:
        """Return all but the structure as plain data."""
        return {
            "walker": self.walker,
            "calls": self.calls,
            "grade": self.grade if self.grade < float("inf") else None,
            "trigger": self.trigger,
            "atom": self.atom,
        }


def structures(wishes: Sequence[Wish]) -> Systems:
    """Return the structures of some wishes as one batch."""
    return Systems.concatenate([one.structure for one in wishes])


def distinct(wishes: Iterable[Wish]) -> list[Wish]:
    """Return the wishes without repeats of a structure, such as those of walkers that begin at one place."""
    found: dict[str, Wish] = {}
    for one in wishes:
        found.setdefault(structure_digest(one.structure), one)
    return list(found.values())


def cores(wishes: Sequence[Wish]) -> torch.Tensor:
    """Return (n_atoms,) bool of their structures as one batch: atoms that have all their neighbours."""
    return torch.cat(
        [torch.ones_like(one.structure.fixed) if one.core is None else one.core for one in wishes]
    )


def to_checkpoint(wishes: Sequence[Wish]) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    """Return wishes, of one system in different positions, as tensors and plain data."""
    if not wishes:
        return {}, []
    pos = torch.stack([one.structure.pos for one in wishes])
    return {"wishes.pos": pos}, [one.told() for one in wishes]


def of_checkpoint(
    system: Systems, tensors: dict[str, torch.Tensor], told: list[dict[str, Any]]
) -> list[Wish]:
    """Return the wishes that `to_checkpoint` was given; ``system`` is a batch of one."""
    found = []
    for pos, one in zip(tensors.get("wishes.pos", ()), told, strict=True):
        grade = float("inf") if one["grade"] is None else one["grade"]
        found.append(Wish(system.with_pos(pos), one["walker"], one["calls"], grade, one["trigger"]))
    return found

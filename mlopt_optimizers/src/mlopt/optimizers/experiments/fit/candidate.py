"""Candidates of a scan: the measure that decides between them, and the cost of an evaluation of each."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from mlopt.core.atoms.dataset import Dataset
from mlopt.core.files.atomic import JSON
from mlopt.core.landscapes.potential import Potential
from mlopt.core.lazy import torch

#: atoms that are evaluated to see what that costs, and the seconds that a candidate has for it
_ATOMS, _SECONDS = 500, 0.2


@dataclass(frozen=True)
class Candidate:
    """One choice of a scan.

    settings: the choice.
    evidence: logarithm of the evidence; None where the potential is not linear.
    strength: strength of the prior; None where the potential is not linear.
    held_back: the loss on structures that training did not learn from; None where the potential is linear.
    left_out: root mean square of weighted residuals of each fold under a fit to the others; None where the potential is
        not linear, or where there is no other candidate.
    by_folds: whether ``left_out`` decides in place of the evidence.
    seconds: time for the energy and forces of an atom, see `with_costs`; None where it was not measured.
    """

    settings: dict[str, Any]
    parameters: int
    evidence: float | None = None
    strength: float | None = None
    held_back: float | None = None
    left_out: float | None = None
    by_folds: bool = False
    seconds: float | None = None

    @property
    def merit(self) -> float:
        """The number that decides between candidates: the larger, the better."""
        if self.by_folds:
            return -float(self.left_out or 0.0)
        return self.evidence if self.evidence is not None else -float(self.held_back or 0.0)

    @property
    def decides(self) -> str:
        """The name of the measure that decides."""
        if self.by_folds:
            return "error on left-out folds"
        return "evidence" if self.evidence is not None else "loss"

    @property
    def error(self) -> float | None:
        """The root mean square of weighted residuals on data that were left out of the fit or held back."""
        return self.left_out if self.held_back is None else float(self.held_back) ** 0.5

    def plain(self) -> JSON:
        """Return the candidate as plain data."""
        return asdict(self)


def with_costs(
    candidates: Sequence[Candidate], potentials: Sequence[Potential], data: Dataset
) -> list[Candidate]:
    """Return candidates with the seconds that each of their ``potentials`` takes for an atom of ``data``.

    All are measured in turn on the same structures, of about 500 atoms together. Other work on the machine then affects
    all of them alike. Of all evaluations in about 0.2 seconds the fastest counts. Compiling is not counted.
    """
    counts = data.systems.segments.counts.tolist()
    order = range(0, len(counts), max(1, sum(counts) // _ATOMS))  # from all over the data
    chosen: list[int] = []
    atoms = 0
    for place in order:
        if not chosen or atoms + counts[place] <= _ATOMS:
            chosen.append(place)
            atoms += counts[place]
    systems = data.systems.select(chosen)
    taken: list[list[float]] = [[] for _ in potentials]
    with torch.no_grad():
        for potential in potentials:
            potential.evaluate(systems)
        while waiting := [place for place, one in enumerate(taken) if sum(one) < _SECONDS]:
            for place in waiting:
                began = time.perf_counter()
                potentials[place].evaluate(systems)
                taken[place].append(time.perf_counter() - began)
    return [
        replace(one, seconds=min(own) / max(atoms, 1)) for one, own in zip(candidates, taken, strict=True)
    ]


def front(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the Pareto front: candidates than which no other is both cheaper and better, the cheapest first.

    Only candidates whose cost and error are known count.
    """
    known = [one for one in candidates if one.seconds is not None and one.error is not None]
    found: list[Candidate] = []
    for one in sorted(known, key=lambda one: (one.seconds, one.error)):
        if not found or (one.error or 0.0) < (found[-1].error or 0.0):
            found.append(one)
    return found

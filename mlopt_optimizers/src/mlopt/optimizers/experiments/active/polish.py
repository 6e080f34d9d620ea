"""The relaxation of reported minima until forces of labels are small, with few labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from mlopt.core.atoms.dataset import Dataset
from mlopt.core.atoms.systems import Systems
from mlopt.core.batch.random import problem_keys
from mlopt.core.driver.driver import Driver
from mlopt.core.driver.stop import Reason, Stop
from mlopt.core.landscapes.evaluation import Evaluation
from mlopt.core.landscapes.landscape import AtomsLandscape, Landscape
from mlopt.core.lazy import torch
from mlopt.core.protocols.fittable import FittablePotential
from mlopt.optimizers.experiments.active.learned import Learned, Learner
from mlopt.optimizers.local.lbfgs import LBFGS

#: force calls of the fitted potential between two labels of a structure
_CALLS = 300
#: a step may move an atom by this many distances between neighbours, less after steps that made forces larger
_REACH = 0.1
#: energies of one structure that differ by less do not tell which is lower, eV
_SAME = 1e-4
#: steps in a row that may fail before a structure is left as it is
_PATIENCE = 4


class Tilted(Landscape):
    """A fitted potential with a constant force on each atom, such that forces at one point are those of its label.

    Its curvature is that of the fitted potential. Its minimum is therefore a Newton step of the true potential, whose
    error is that of the curvature alone.

    there: the point.
    force (n_atoms, 3): the labelled force there.
    """

    def __init__(self, potential: FittablePotential, there: Systems, force: torch.Tensor) -> None:
        self.inner = AtomsLandscape(there, potential)
        self.segments, self.manifold, self.fixed = self.inner.segments, self.inner.manifold, self.inner.fixed
        self.species, self.diameter = self.inner.species, self.inner.diameter
        self.origin = there.pos
        self.tilt = (force - self.inner.evaluate(there.pos).force).masked_fill(there.fixed[:, None], 0.0)

    def evaluate(self, x: torch.Tensor) -> Evaluation:
        """Return energy (n_problems,) and force (n_rows, 3) with the constant force."""
        found = self.inner.evaluate(x)
        work = self.segments.dot(self.tilt, x - self.origin)
        return replace(found, energy=found.energy - work, force=found.force + self.tilt)

    def select(self, problems: torch.Tensor) -> Tilted:
        """Return the landscape of some problems (k,) int64."""
        part = object.__new__(Tilted)
        part.inner = self.inner.select(problems)
        part.segments, part.manifold, part.fixed = part.inner.segments, part.inner.manifold, part.inner.fixed
        part.species, part.diameter = part.inner.species, part.inner.diameter
        _, rows = self.segments.select(problems)
        part.origin, part.tilt = self.origin[rows], self.tilt[rows]
        return part


def polished(
    learner: Learner,
    learned: Learned,
    places: list[int],
    label: Callable[[Systems], Dataset],
    budget: int,
    fmax: float,
) -> tuple[Learned, Dataset, list[Dataset], int]:
    """Relax labelled structures until no force of a label exceeds ``fmax``, or ``budget`` labels are spent.

    Each structure moves to the minimum of the `Tilted` potential and is labelled there, and the potential is fitted
    anew. A step that lowers neither the energy nor the forces is taken back, and the next one is half as long.

    Return the knowledge afterwards, the best label of each structure, all new labels, and the number of labels that
    failed.

    places: the places of the structures among the labels.
    """
    best = learned.data.select(places)
    reach = torch.full((len(places),), _REACH, dtype=torch.float64)
    misses = torch.zeros(len(places), dtype=torch.int64)
    seen, failed, spent = list[Dataset](), 0, 0
    while True:
        left = torch.nonzero((largest_force(best) > fmax) & (misses < _PATIENCE)).flatten()[: budget - spent]
        if not left.numel():
            return learned, best, seen, failed
        trial, taken = _moved(learned.potential, best.select(left), reach[left], 0.3 * fmax)
        found = label(trial)
        spent += len(left)
        sound = torch.nonzero(found.with_energy).flatten()
        failed += len(left) - len(sound)
        if len(sound):
            seen.append(found.select(sound))
            learned = learner.extended(learned, seen[-1])
        rise = found.energy - best.energy[left]
        smaller = (rise < _SAME) & (largest_force(found) < largest_force(best)[left])
        better = found.with_energy & ((rise < -_SAME) | smaller)
        misses[left] = torch.where(better, 0, misses[left] + 1)
        reach[left] = torch.where(better, (2.0 * reach[left]).clamp(max=_REACH), 0.5 * taken)
        order = torch.arange(len(best)).index_copy(
            0, left, torch.where(better, len(best) + torch.arange(len(left)), left)
        )
        best = Dataset.concatenate([best, found]).select(order)


def largest_force(data: Dataset) -> torch.Tensor:
    """Return the largest force on a free atom of each structure, (n,)."""
    force = data.force.masked_fill(data.systems.fixed[:, None], 0.0)
    largest: torch.Tensor = data.systems.segments.longest2(force).sqrt()
    return largest


def _moved(
    potential: FittablePotential, there: Dataset, reach: torch.Tensor, fmax: float
) -> tuple[Systems, torch.Tensor]:
    """Return the structures at the minima of their tilted potentials, or at the limit of the way there.

    Only the beginning of that way is downhill for the label as well, so a shorter step does not have its direction.
    Returns how far they went as well, (n,), as ``reach``.
    """
    systems = there.systems
    landscape = Tilted(potential, systems, there.force)
    driver = Driver(landscape, LBFGS(), Stop(_CALLS, fmax))
    progress = driver.begin(systems.pos, problem_keys(0, torch.arange(len(systems))))
    while not progress.done:
        driver.advance(progress, until=progress.calls + 1)
        now = driver.result(progress).x
        far = _lengths(landscape, now)[progress.active] >= reach[progress.active]
        progress.end(far.long() * Reason.BUDGET.code, progress.calls)
    found = driver.result(progress).x
    move = torch.where(torch.isfinite(found), found - systems.pos, 0.0)
    longest = _lengths(landscape, systems.pos + move)
    share = (reach / longest.clamp_min(1e-300)).clamp(max=1.0)
    return systems.with_pos(systems.pos + systems.segments.scale(share, move)), share * longest


def _lengths(landscape: Tilted, x: torch.Tensor) -> torch.Tensor:
    """Return the largest displacement of an atom from the origin, in diameters: (n,)."""
    assert landscape.diameter is not None
    away = (x - landscape.origin) / landscape.diameter[:, None]
    longest: torch.Tensor = landscape.segments.longest2(away).sqrt()
    return longest

"""The polish of a search: its points relaxed tightly in float64 and evaluated again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from pydantic import field_validator

from mlopt.core.atoms.systems import Systems
from mlopt.core.batch.random import Draws, problem_keys
from mlopt.core.driver.driver import Driver
from mlopt.core.driver.result import Result
from mlopt.core.driver.stop import Stop
from mlopt.core.landscapes.landscape import AtomsLandscape
from mlopt.core.landscapes.potential import Potential
from mlopt.core.lazy import torch
from mlopt.core.minima.verification import Reading
from mlopt.core.plugins.plugin import FromRegistry, Plugin, setting
from mlopt.core.protocols.optimizer import Optimizer, local_only
from mlopt.core.runs.experiment import Preempted
from mlopt.optimizers.local.lbfgs import LBFGS

#: candidates whose energies differ by less are polished once; the store compares geometries afterwards
_SAME_ENERGY = 1e-5
#: a minimum of the pool this little above the lowest energy of a start is that lowest one
_MET_WITHIN = 1e-3


class Polish(Plugin):
    """The settings for relaxing the best point of each start, and the minima met on the way."""

    optimizer: Annotated[Optimizer, FromRegistry("optimizer")] = setting(LBFGS(), "a local optimizer")
    force_calls: int = setting(1000, "limit for each structure; 0: no polish", ge=0)
    fmax: float | None = setting(
        1e-6, "largest force at which a structure is relaxed", unit="energy/length", gt=0
    )
    shake: float = setting(
        1e-3,
        "random displacement beforehand, so that symmetry does not hold a structure on a saddle",
        unit="diameter",
        ge=0,
    )

    @field_validator("optimizer")
    @classmethod
    def _local(cls, optimizer: Optimizer) -> Optimizer:
        return local_only(optimizer)

    def tolerating(self, rise: float) -> Polish:
        """Return these settings for a potential that repeats energies only to ``rise``, relative to 1 + |energy|."""
        return self.replace(optimizer=self.optimizer.tolerating(rise))


@dataclass(frozen=True)
class Polished:
    """Relaxed structures, float64 on the CPU, with their origin.

    systems: k structures.
    energy, fmax: (k,) evaluated again from the final positions, in the potential's units.
    start: (k,) int64, index of the start.
    calls: (k,) int64, force calls of the start when the search met the point.
    spent: (k,) int64, force calls of the polish, including the last evaluation.
    zero_width: (k,) energies without electronic smearing, if available.
    """

    systems: Systems
    energy: torch.Tensor
    fmax: torch.Tensor
    start: torch.Tensor
    calls: torch.Tensor
    spent: torch.Tensor
    zero_width: torch.Tensor | None = None


def polish(
    potential: Potential, systems: Systems, settings: Polish, pause: Callable[[], bool]
) -> tuple[Systems, torch.Tensor]:
    """Relax ``systems``; return them and the force calls of each. Their energies are computed later.

    Raises:
        Preempted: ``pause`` was true between two steps. A resumed search begins the polish anew.
    """
    if settings.force_calls == 0 or not systems.n_systems:
        return systems, torch.zeros(systems.n_systems, dtype=torch.int64)
    stop = Stop(settings.force_calls, settings.fmax)
    driver = Driver(AtomsLandscape(systems, potential), settings.optimizer, stop)
    key = problem_keys(0, torch.arange(systems.n_systems, device=systems.pos.device))
    draws = Draws(key, torch.zeros_like(key), systems.segments)
    kick = settings.shake * potential.diameter(systems.z).to(systems.pos)[:, None] * draws.normal_rows(3)
    begun = torch.where(systems.fixed[:, None], systems.pos, systems.pos + kick)
    progress = driver.advance(driver.begin(begun, key), pause)
    if not progress.done:
        raise Preempted
    relaxed = driver.result(progress)
    sound = ~relaxed.failed
    rows = systems.segments.rows_of(sound.to(systems.pos.device))[:, None]
    return systems.with_pos(torch.where(rows, relaxed.x, systems.pos)), relaxed.calls


def best_of_each(
    result: Result, base: Systems, potential: Potential, settings: Polish, pause: Callable[[], bool]
) -> Polished:
    """Polish the best point of every start; ``base`` is the batch for which the starts were drawn, in float64."""
    systems = at(base, result.x)
    calls = result.calls
    if result.pool_energy.shape[1]:  # a search met its best when it first arrived at that minimum
        energy, slot = result.pool_energy.min(1)
        met = result.pool_calls.gather(1, slot[:, None])[:, 0]
        calls = torch.where(energy - result.energy < _MET_WITHIN, met, calls)
    return _evaluated(
        potential, *polish(potential, systems, settings, pause), torch.arange(len(result)), calls
    )


def lowest_met(
    result: Result,
    base: Systems,
    potential: Potential,
    settings: Polish,
    keep: int,
    pause: Callable[[], bool],
) -> Polished:
    """Polish the ``keep`` lowest distinct minima that a search met, over all starts."""
    picked: list[tuple[int, int]] = []
    last = -torch.inf
    flat = result.pool_energy.flatten()
    for index in torch.argsort(flat, stable=True).tolist():
        energy = float(flat[index])
        if len(picked) == keep or energy == torch.inf:
            break
        if energy - last > _SAME_ENERGY:
            picked.append(divmod(index, result.pool_energy.shape[1]))
            last = energy
    starts = torch.tensor([start for start, _ in picked], dtype=torch.int64)
    calls = torch.tensor([int(result.pool_calls[start, slot]) for start, slot in picked], dtype=torch.int64)
    systems = base.select(starts)
    if picked:
        ptr = base.ptr
        points = [result.pool_x[int(ptr[start]) : int(ptr[start + 1]), slot] for start, slot in picked]
        systems = at(systems, torch.cat(points))
    return _evaluated(potential, *polish(potential, systems, settings, pause), starts, calls)


def at(base: Systems, x: torch.Tensor) -> Systems:
    """Return ``base`` at ``x``, with fixed atoms exactly in place, although a search in float32 has rounded them."""
    return base.with_pos(torch.where(base.fixed[:, None], base.pos, x.to(torch.float64)))


def _evaluated(
    potential: Potential, systems: Systems, spent: torch.Tensor, start: torch.Tensor, calls: torch.Tensor
) -> Polished:
    """Compute energy and force again, in float64 on the CPU, from the positions that will be stored."""
    systems = systems.to("cpu", torch.float64)
    with torch.no_grad():
        found = AtomsLandscape(systems, potential).evaluate(systems.pos)
    fmax = systems.segments.max((found.force * found.force).sum(-1)).sqrt()
    return Polished(systems, found.energy, fmax, start.cpu(), calls.cpu(), spent.cpu() + 1, found.zero_width)


def readings(landscape: AtomsLandscape) -> list[Reading]:
    """Evaluate systems at their positions, for `mlopt.core.minima.verification`."""
    with torch.no_grad():
        found = landscape.evaluate(landscape.systems.pos)
    fmax = landscape.segments.longest2(found.force).sqrt().tolist()
    widths = [None] * len(fmax) if found.zero_width is None else found.zero_width.tolist()
    return [Reading(*told) for told in zip(found.energy.tolist(), fmax, widths, strict=True)]

"""Small searches, and comparisons of their results, for the tests of the experiment `search`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray
from pydantic import PrivateAttr

from mlopt.core.atoms.systems import Systems
from mlopt.core.landscapes.evaluation import Evaluation
from mlopt.core.minima.matching import same_structure
from mlopt.core.minima.store import Minimum
from mlopt.core.structures.spec import SystemSpec
from mlopt.optimizers.experiments.search.experiment import Search
from mlopt.optimizers.experiments.search.result import SearchResult
from mlopt.optimizers.moves.basic import Angular, Displacement
from mlopt.optimizers.searches.basin_hopping import BasinHopping
from mlopt.optimizers.searches.settings import Budget, MinimaSettings
from mlopt.potentials.classical.lennard_jones import LennardJones

#: Hoare & Pal, Adv. Phys. 20, 161 (1971), with the digits of the Cambridge Cluster Database
LJ7 = -16.505384

#: with the step spelled out: which starts hit within a small budget should not change with the default
HOPPING = BasinHopping(moves=[Displacement(step=0.36), Angular()])


def search(cluster: str = "Ar7", calls: int = 400, **settings: Any) -> Search:
    """A small one."""
    given: dict[str, Any] = {
        "system": SystemSpec(cluster=cluster),
        "potential": LennardJones(),
        "optimizer": HOPPING,
        "starts": 4,
        "budget": Budget(force_calls=calls),
        "minima": MinimaSettings(keep=8),
    }
    return Search(**(given | settings))


class Counting(LennardJones):
    """Counts the systems that it evaluates."""

    _seen: list[int] = PrivateAttr(default_factory=list)

    def evaluate(self, systems: Systems, *, stress: bool = False) -> Evaluation:
        self._seen.append(len(systems))
        return super().evaluate(systems, stress=stress)


def same(a: SearchResult, b: SearchResult) -> None:
    """Bit for bit, but for the time it took."""
    ours, theirs = [one.summary() | {"wall_s": 0, "compile_s": 0} for one in (a, b)]
    assert ours == theirs
    assert a.table() == b.table()
    assert torch.equal(a.result.x, b.result.x) and torch.equal(a.result.pool_x, b.result.pool_x)
    assert torch.equal(a.result.trace_energy, b.result.trace_energy)
    assert torch.equal(a.polished.systems.pos, b.polished.systems.pos)
    assert [m.energy for m in a.minima] == [m.energy for m in b.minima]
    for one, other in zip(a.minima, b.minima, strict=True):
        assert np.array_equal(one.pos, other.pos) and one.start_index == other.start_index
        assert one.force_calls == other.force_calls and one.hits == other.hits


def distinct(minima: list[Minimum]) -> bool:
    return not any(
        same_structure(one, other, 1e-3, 0.05) for i, one in enumerate(minima) for other in minima[:i]
    )


def lj(
    pos: NDArray[np.float64], z: NDArray[np.int64], cell: NDArray[np.float64], pbc: NDArray[np.bool_]
) -> tuple[float, NDArray[np.float64]]:
    """By ASE, for `verify`."""
    from ase.calculators.lj import LennardJones as AseLennardJones

    atoms = Atoms(z, pos, calculator=AseLennardJones(sigma=2 ** (-1 / 6), epsilon=1.0, rc=1e4))
    return float(atoms.get_potential_energy()), atoms.get_forces()

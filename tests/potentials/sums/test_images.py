"""The search that tries every image finds what the search by cells finds."""

from __future__ import annotations

import pytest
import torch
from ase import Atoms
from ase.build import bulk

from mlopt.core.atoms.neighbours import Neighbours, find_neighbours
from mlopt.core.atoms.systems import Systems
from mlopt.potentials.sums import few_atoms as images
from mlopt.potentials.sums.few_atoms import find_pairs


def rattled(atoms: Atoms, seed: int) -> Atoms:
    atoms.rattle(0.2, seed=seed)
    atoms.positions += [9.1, -20.0, 3.3]  # outside the cell
    return atoms


def batch() -> Systems:
    """Cells of one atom and of many, skewed, long and flat; free clusters, a wire and a lone atom."""
    free = bulk("Si", cubic=True) * (2, 1, 1)
    free.pbc = False
    wire = bulk("Si", cubic=True)
    wire.pbc = [False, True, False]
    return Systems.from_atoms(
        [
            rattled(atoms, seed)
            for seed, atoms in enumerate(
                [
                    bulk("Cu"),
                    bulk("Si"),
                    bulk("Si", cubic=True) * (2, 2, 2),
                    free,
                    bulk("Cu") * (1, 1, 4),
                    wire,
                    Atoms("Si"),
                    bulk("Si", cubic=True) * (2, 2, 2),
                    bulk("Ti") * (2, 1, 1),
                ]
            )
        ]
    )


def as_set(pairs: Neighbours) -> set[tuple[int, int, tuple[int, ...]]]:
    found = set()
    for i, j, shift in zip(pairs.first.tolist(), pairs.second.tolist(), pairs.shift.tolist(), strict=True):
        step = tuple(int(x) for x in shift)
        found.add(min((i, j, step), (j, i, tuple(-x for x in step))))
    assert len(found) == len(pairs.first), "a pair twice"
    return found


@pytest.mark.parametrize("cutoff", [2.6, 3.77, 6.0, 9.0])
def test_the_same_pairs(cutoff: float) -> None:
    systems = batch()
    tried, expected = find_pairs(systems, cutoff), find_neighbours(systems, cutoff)
    assert as_set(tried) == as_set(expected) and len(tried.first) > 50
    distances = [pairs.differences(systems).square().sum(0).sort().values for pairs in (tried, expected)]
    torch.testing.assert_close(*distances, rtol=0, atol=1e-10)
    assert float(distances[0][-1]) < cutoff**2


def test_who_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wires and slabs, and systems with many images, go to the search by cells; nobody else."""
    asked: list[int] = []

    def by_cells(systems: Systems, cutoff: float) -> Neighbours:
        asked.append(len(systems))
        return find_neighbours(systems, cutoff)

    monkeypatch.setattr(images, "find_neighbours", by_cells)
    expected = as_set(find_neighbours(batch(), 3.0))
    assert as_set(find_pairs(batch(), 3.0)) == expected and asked == [1]
    monkeypatch.setattr(images, "MOST", 0)
    assert as_set(find_pairs(batch(), 3.0)) == expected and asked == [1, 9]


def test_parts_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    systems = batch()
    whole = find_pairs(systems, 4.0)
    monkeypatch.setattr(images, "CHUNK", 1)
    part = find_pairs(systems, 4.0)
    for system in range(len(systems)):
        mine = [systems.batch[pairs.first] == system for pairs in (whole, part)]
        alone = find_pairs(systems[system], 4.0)
        assert torch.equal(whole.first[mine[0]], part.first[mine[1]])
        assert torch.equal(whole.first[mine[0]] - systems.ptr[system], alone.first)
        assert torch.equal(whole.shift[mine[0]], alone.shift)


def test_systems_that_make_no_sense() -> None:
    good, flat, far = bulk("Si"), bulk("Si"), bulk("Si")
    flat.cell[2] = flat.cell[1]
    far.positions[0] = 1e15
    free = Atoms("Si2", [[0, 0, 0], [float("inf"), 0, 0]])
    found = find_pairs(Systems.from_atoms([good, flat, far, free, good]), 3.0)
    assert found.lost.tolist() == [False, True, True, True, False]
    assert set(found.first.tolist()) <= {0, 1, 8, 9} and len(found.first) == 2 * len(
        find_pairs(Systems.from_atoms(good), 3.0).first
    )

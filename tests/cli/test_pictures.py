"""Ball pictures: odd structures, what lies inside the frame, the view along a symmetry axis."""

from __future__ import annotations

import re

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.cluster import Decahedron, Octahedron

from mlopt.cli.report import balls
from mlopt.cli.report.minima import ShownMinimum


def minimum_of(atoms: Atoms) -> ShownMinimum:
    """Wrap a structure."""
    periodic = (bool(atoms.pbc[0]), bool(atoms.pbc[1]), bool(atoms.pbc[2]))
    nothing = {
        "point_group": "",
        "hits": None,
        "start": None,
        "calls": None,
        "fmax": None,
        "formula": str(atoms.symbols),
    }
    return ShownMinimum(
        rank=1,
        energy=-1.0,
        numbers=atoms.numbers,
        positions=atoms.positions,
        cell=atoms.cell.array,
        periodic=periodic,
        **nothing,
    )


@pytest.mark.parametrize(
    "atoms",
    [
        Atoms("Ar"),
        Atoms("Ar2", positions=[[0, 0, 0], [0, 0, 1]]),
        Atoms("Ar3", positions=[[0, 0, 0], [0, 0, 1], [0, 0, 2]]),
        Atoms("Ar2", positions=np.zeros((2, 3))),
        Decahedron("Au", 3, 3, 0),
        bulk("NaCl", "rocksalt", a=5.6, cubic=True),
        bulk("Si", "diamond", a=5.43),
        Atoms("Si4", positions=np.eye(4, 3), cell=[5, 5, 0], pbc=[True, True, False]),
    ],
    ids=[
        "atom",
        "dimer",
        "chain",
        "coincident",
        "decahedron",
        "alloy-cell",
        "primitive-cell",
        "slab-without-height",
    ],
)
def test_pictures_of_odd_structures(atoms: Atoms) -> None:
    """Every sphere lies inside the picture, and every colour has its gradient and its entry in the key."""
    minimum = minimum_of(atoms)
    drawing = balls.picture(minimum, "a")
    spheres = re.findall(r'cx="([-\d.]+)" cy="([-\d.]+)" r="([\d.]+)" fill="url\(#(\w+)\)"', drawing)
    assert len(spheres) == len(atoms)
    for x, y, r, _ in spheres:
        assert all(float(r) - 0.2 <= float(c) <= balls.SIZE - float(r) + 0.2 for c in (x, y))
    names = {name for *_, name in spheres}
    assert names == set(re.findall(r'radialGradient id="(\w+)"', balls.gradients([minimum])))
    assert balls.legend([minimum]).count("<circle") == len(names)


def test_clusters_are_seen_along_their_symmetry_axis() -> None:
    """Straightened, the picture of the truncated octahedron has its four-fold axis towards the viewer."""
    turned = Atoms("Ar38", positions=Octahedron("Ar", 4, cutoff=1, latticeconstant=1.56).positions)
    turned.rotate(37, (1, 2, 3))
    minimum = minimum_of(turned)
    centred = minimum.positions - minimum.positions.mean(axis=0)
    axis = balls._symmetry_axis(centred, minimum)
    assert axis is not None and axis[1] == 4
    quarter = np.cross(axis[0], centred) + np.outer(centred @ axis[0], axis[0])
    nearest = np.linalg.norm(quarter[:, None] - centred, axis=2).min(axis=1)
    assert nearest.max() < 0.02


def test_large_structures_get_no_picture() -> None:
    """The first is pictured if it is not huge; then as many as keep the file small."""
    small, large, huge = (
        minimum_of(Atoms("Ar" + str(n), positions=np.zeros((n, 3)))) for n in (38, 900, 2500)
    )
    assert len(balls.pictured([small] * 9, 6)) == 6
    assert len(balls.pictured([large] * 3, 6)) == 1
    assert balls.pictured([huge], 6) == ()
    assert balls.pictured([minimum_of(Atoms("Ar", positions=[[np.nan, 0, 0]]))], 6) == ()

"""Seven platinum atoms that slide over a surface: both ends of the path are built with ASE, then the recipe runs.

python examples/pt_heptamer.py
"""

import numpy as np
from ase import Atoms
from ase.build import fcc111
from ase.constraints import FixAtoms
from ase.io import write

from mlopt.cli.configs.sources import find

NEIGHBOUR = 2.7441  # angstrom, of the Morse potential of the recipe
slab = fcc111("Pt", (7, 8, 6), a=NEIGHBOUR * 2**0.5, orthogonal=True, vacuum=10.0, periodic=True)
slab.info.clear()  # where to put adsorbates, which no file keeps
top = slab.positions[slab.positions[:, 2] > slab.positions[:, 2].max() - 0.1]
slab.set_constraint(FixAtoms(mask=slab.positions[:, 2] < slab.positions[:, 2].min() + 2.5 * 2.25))
height = NEIGHBOUR * (2 / 3) ** 0.5
triangle = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, 0.75**0.5]]).mean(0) * NEIGHBOUR  # between three atoms
turns = np.arange(6) * np.pi / 3
hexagon = np.vstack([[0.0, 0.0], np.stack([np.cos(turns), np.sin(turns)], 1)]) * NEIGHBOUR
middle = top[np.argmin(((top - top.mean(0)) ** 2).sum(1))]

for name, site in (("reactant", triangle), ("product", triangle * [1, -1])):
    island = Atoms("Pt7", np.hstack([middle[:2] + site + hexagon, np.full((7, 1), middle[2] + height)]))
    both = slab + island
    both.set_constraint(slab.constraints)
    write(f"pt_heptamer_{name}.extxyz", both)

found = find("pt-heptamer").experiment().run()
print(found.headline)  # barrier 0.62, ... saddle of first order; in eV
print(f"{found.gradient_evaluations} force calls")

"""How the range of a Morse potential changes the lowest structure found: rho0 = 3 (long) to 14 (short).

python examples/morse_scan.py [N]
"""

import sys

from mlopt.core.structures.spec import SystemSpec
from mlopt.optimizers import BasinHopping, Budget, Search
from mlopt.potentials import Morse

n_atoms = int(sys.argv[1]) if len(sys.argv) > 1 else 8
for rho0 in (3.0, 6.0, 10.0, 14.0):
    found = Search(
        system=SystemSpec(cluster=f"Ar{n_atoms}"),
        potential=Morse(rho0=rho0),
        optimizer=BasinHopping(temperature=0.4),
        starts=6,
        budget=Budget(force_calls=400),
    ).run()
    best = found.best
    print(f"rho0 = {rho0:4}: {best.energy:12.6f}  {best.point_group.symbol:4}  {len(found.minima)} minima")

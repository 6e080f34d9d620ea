"""Thirteen copper atoms with ASE's EMT: a structure file in, the distinct minima out.

python examples/cu13_emt.py
"""

from pathlib import Path

from ase.calculators.emt import EMT
from ase.io import read, write

from mlopt.core.structures.spec import SystemSpec
from mlopt.optimizers import BasinHopping, Budget, GivenStart, Search
from mlopt.potentials import AsePotential

found = Search(
    system=SystemSpec(file=str(Path(__file__).with_name("cu13.extxyz"))),
    potential=AsePotential.wrap(EMT()),  # in a configuration: {name: ase, calculator: emt}
    optimizer=BasinHopping(temperature=0.3),
    start=GivenStart(rattle=0.1),  # near the structure in the file, instead of anywhere
    starts=2,
    budget=Budget(force_calls=400),
).run()

write("cu13_minima.extxyz", found.atoms())
for atoms in read("cu13_minima.extxyz", index=":5"):
    print(f"{atoms.get_potential_energy():.4f} eV  {atoms.info['point_group']}")

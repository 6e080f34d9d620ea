"""Configurations of MLIP: species are numbers, PlusStress is minus the stress times the volume."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mlopt.core import InputError
from mlopt.core.structures import LabelledFile, read_dataset

TEXT = """BEGIN_CFG
 Size
    2
 Supercell
         4.0      0.0      0.0
         0.0      5.0      0.0
         0.0      0.0      6.0
 AtomData:  id type       cartes_x      cartes_y      cartes_z           fx          fy          fz
             1    0       0.000000      0.000000      0.000000    -0.100000   -0.200000   -0.300000
             2    1       0.000000      1.805000      1.805000     0.100000    0.200000    0.300000
 Energy
          -1.266282052112
 PlusStress:  xx          yy          zz          yz          xz          xy
         1.20000     2.40000     3.60000     4.80000     6.00000     7.20000
 Feature   EFS_by       VASP
END_CFG

BEGIN_CFG
 Size
    1
 AtomData:  id type       cartes_x      cartes_y      cartes_z
             1    1       0.000000      0.000000      0.000000
 Energy
          2.5
END_CFG
"""


def test_everything_is_read(tmp_path: Path) -> None:
    path = tmp_path / "data.cfg"
    path.write_text(TEXT)
    data = LabelledFile(file=str(path), elements=["Cu", "Au"]).read()
    assert data.systems.z.tolist() == [29, 79, 79]
    assert data.energy.tolist() == [-1.266282052112, 2.5]
    assert data.with_force.tolist() == [True, False] == data.with_stress.tolist()
    assert data.systems.pbc.tolist() == [[True] * 3, [False] * 3]
    np.testing.assert_allclose(
        data.stress[0], -np.array([[0.01, 0.06, 0.05], [0.06, 0.02, 0.04], [0.05, 0.04, 0.03]])
    )


@pytest.mark.parametrize(
    ("old", "new", "elements", "message"),
    [
        ("", "", [], "`elements` must be symbols, one for each species of the file, got none"),
        ("", "", ["Xx"], "`elements` must be symbols"),
        ("", "", ["Cu"], "has the species 1, but `elements` names 1"),
        ("END_CFG\n", "", ["Cu", "Au"], "has no END_CFG; the file is cut short"),
        ("    2\n", "    7\n", ["Cu", "Au"], "AtomData must have 7 lines of 8 columns"),
        ("    2\n", "    7000000\n", ["Cu", "Au"], "Size must be the number of atoms below it"),
        ("-1.266282052112", "minus one", ["Cu", "Au"], "are no numbers"),
        ("cartes_y", "y", ["Cu", "Au"], "with the columns type, cartes_x, cartes_y and cartes_z is missing"),
        ("BEGIN_CFG", "BEGIN", ["Cu", "Au"], "has no BEGIN_CFG"),
    ],
)
def test_what_is_wrong_is_named(
    old: str, new: str, elements: list[str], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "data.cfg"
    path.write_text(TEXT.replace(old, new) if "BEGIN" in old or "END" in old else TEXT.replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        read_dataset(path, elements=elements)

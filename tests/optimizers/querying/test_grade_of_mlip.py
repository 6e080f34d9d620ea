"""Grades of MLIP-3: those of all neighbourhoods of its reference, under its active set."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from mlopt.core.structures import read_dataset
from mlopt.optimizers.querying import ActiveSet, Grader
from mlopt.potentials import Mtp

pytest.importorskip("numba")

#: The rows that MLIP-3 selects, one for each of its 235 parameters (16 moments, 3 constants, 216 radial coefficients):
#: frame times 27 plus atom. It starts from 1e-6 times the unit matrix and exchanges the largest coefficient. -1 stands
#: for no exchange: the parameters are redundant, as a radial function may be scaled against its moments.
SELECTED = """
    -1 -1 -1 -1 2993 406 15153 -1 16179 1191 -1 7528 24921 24822 10732 20 20108 16099 -1 13284 20898 14391 13362
    9196 918 14172 11360 16999 25107 17037 24632 702 27008 15421 15749 22835 18530 24983 9724 13115 13975 21419
    9493 6118 25947 3071 9261 405 14858 18607 13959 18877 25890 7275 6982 21539 22418 2801 108 26742 21022 18326
    25735 8532 13080 12879 26919 22106 19811 19182 7425 16382 23155 22997 236 22484 15687 2623 4849 17639 25211
    26607 6388 11985 6029 7491 16119 8490 5038 16127 18002 19819 15214 14473 12896 23642 24263 12240 21058 6925
    21212 17424 19056 1591 3932 18307 19916 16171 10188 15866 4117 2779 8738 22415 19904 18863 229 9868 1915 8834
    14863 23623 6393 997 3346 5818 13957 10470 12915 20267 21721 19827 16140 16491 18867 8526 2771 7442 17663 7550
    13976 9540 3967 13289 244 6142 27009 23291 21709 12757 22138 16124 4892 7276 24865 18967 430 7338 26608 17100
    6057 9332 18874 12863 589 3367 16049 19883 11930 651 762 23975 13870 25977 19814 9492 9870 15782 18929 24994
    23134 13106 1589 13013 1002 2726 17537 955 7524 23617 10502 15805 2669 14528 3344 3050 12454 1542 11609 13997
    964 8790 4870 20565 424 26628 5438 1558 12030 6151 2660 1577 13186 15478 203 26702 1565 4797 578 11995 3022
    7764 19469 25966 16808 14852 20549 23636 15775 23246 16422 11980 26329 239 12805
"""


@pytest.mark.slow
def test_grades_are_those_of_mlip(data_dir: Path, tmp_path: Path) -> None:
    """To the five digits that MLIP has printed."""
    folder, elements = data_dir / "mtp_golden" / "multi" / "10", ["Cu", "Ag", "Au"]
    text = gzip.decompress((folder / "out_full_with_nbh_grades.cfg.gz").read_bytes()).decode()
    frames = text.split("BEGIN_CFG")[1:]
    selected = np.array(SELECTED.split(), dtype=np.int64)
    real = selected >= 0
    others = np.arange(5, 1001, 50)
    kept = np.unique(np.concatenate([selected[real] // 27, others]))
    path = tmp_path / "some.cfg"
    path.write_text("".join("BEGIN_CFG" + frames[frame] for frame in kept))
    systems = read_dataset(path, elements=elements).systems
    potential = Mtp(file=str(folder / "pot.mtp"), elements=elements)
    rows = potential.row_gradients(systems, nonlinear=True).numpy()
    # MLIP's columns: shared coefficients, constants, radial coefficients in units of the file's scaling
    scaling = float(re.search(r"scaling = (\S+)", (folder / "pot.mtp").read_text())[1])
    order = np.concatenate([np.arange(3, 19), np.arange(3), np.arange(19, 235)])
    unit = np.where(np.arange(235) < 19, 1.0, scaling)
    active = np.zeros((235, 235))
    active[real] = rows[np.searchsorted(kept, selected[real] // 27) * 27 + selected[real] % 27]
    start = np.zeros((235, 235))
    start[:, order] = 1e-6 * np.eye(235)
    active[~real] = (start / unit)[~real]
    grader = Grader(potential, ActiveSet.of(active, selected), nonlinear=True)
    assert grader.active_set.initialised
    found = grader.grade(systems)
    printed = np.array(
        [
            [float(line.split()[-1]) for line in re.split("AtomData.*\n", frames[k])[1].splitlines()[:27]]
            for k in kept
        ]
    )
    assert np.abs(found.row.numpy() - printed.ravel()).max() < 5.1e-6
    whole = torch.tensor([float(re.search(r"MV_grade\s+(\S+)", frames[frame])[1]) for frame in kept])
    assert float((found.system - whole).abs().max()) < 1e-5

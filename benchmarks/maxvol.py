"""Time MaxVol beside motep's, and on more rows than memory would hold.

    python benchmarks/maxvol.py [--data FOLDER] [--seeds 3] [--repeats 3]
    python benchmarks/maxvol.py --streamed 1000000

One thread, tolerance 1e-3, the fastest of some calls. Rows: 10,000 x 300 normal numbers, with columns of equal size and
with columns that fall by 1e6; and, with FOLDER (``Li_train.xyz``, ``Si_train.xyz`` of Zuo et al.), the rows of all
atoms under the level 16 for lithium and 20 for silicon, in independent columns. Columns: seconds of motep 0.2.0 (QR
start) and of mlopt, their ratio, the largest coefficient computed from scratch, and mlopt's log determinant minus
motep's. ``--streamed`` makes that many rows of 300 anew in each pass, and tells time, passes and peak memory.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import numpy as np
import torch

from mlopt.core.structures import LabelledFile
from mlopt.optimizers.querying import ActiveSet
from mlopt.optimizers.querying.maxvol import maxvol
from mlopt.potentials import Mtp

#: rows that are made at a time
BLOCK = 16384
#: settings of the basis of each element
BASES = {"Li": {"level": 16, "cutoff": 6.5}, "Si": {"level": 20, "cutoff": 5.0}}


def best(call: Callable[[], object], repeats: int) -> float:
    """Seconds of the fastest call."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return min(times)


def matrices(seeds: int, data: Path | None) -> Iterator[tuple[str, np.ndarray]]:
    """Names and rows."""
    for seed in range(seeds):
        rows = np.random.default_rng(seed).normal(size=(10_000, 300))
        yield f"normal, seed {seed}", rows
        yield f"falling by 1e6, seed {seed}", rows * np.logspace(0.0, -6.0, 300)
    for element, basis in BASES.items() if data else ():
        known = LabelledFile(file=f"{data}/{element}_train.xyz", forces="force").read()
        potential = Mtp(elements=[element], pair_functions=0, **basis).prepared(known)
        rows = potential.row_gradients(known.systems).numpy()
        yield f"{element} atoms", rows[:, ActiveSet.of(rows).columns]


def largest(rows: np.ndarray, indices: np.ndarray) -> tuple[float, float]:
    """The largest coefficient and the log determinant, from scratch."""
    size = np.abs(rows).max(0)
    scaled = rows / size
    c = np.linalg.solve(scaled[indices].T, scaled.T)
    return float(np.abs(c).max()), float(np.linalg.slogdet(scaled[indices])[1] + np.log(size).sum())


def compare(name: str, rows: np.ndarray, repeats: int) -> None:
    """Print the lines of one matrix."""
    from motep.grade.maxvol import MaxVol

    theirs = MaxVol(threshold=1e-3)
    indices = theirs.run(rows).indices
    seconds, (top, volume) = best(lambda: theirs.run(rows), repeats), largest(rows, indices)
    shape = f"{rows.shape[0]} x {rows.shape[1]}"
    print(f"{name:26s} {shape:>12s} motep        {seconds:7.3f} s            max|C| {top:.4f}")
    for start in ("leverage", "lu"):
        found = maxvol(rows, 1e-3, start)
        own = best(lambda start=start: maxvol(rows, 1e-3, start), repeats)
        top, ours = largest(rows, found.indices)
        print(
            f"{name:26s} {shape:>12s} {start:12s} {own:7.3f} s  {seconds / own:5.1f} x  max|C| {top:.4f}  "
            f"log det {ours - volume:+6.2f}  {found.swaps} exchanges"
        )


def streamed(count: int) -> None:
    """Choose from rows that are made block by block."""
    passes = [0]

    def blocks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        passes[0] += 1
        for first in range(0, count, BLOCK):
            owners = np.arange(first, min(first + BLOCK, count))
            rows = np.random.default_rng(first).standard_normal((len(owners), 300))
            yield rows * np.logspace(0.0, -6.0, 300), owners

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    began = time.perf_counter()
    found = ActiveSet.of_blocks(blocks)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    began = time.perf_counter()
    top = max(float(np.abs(found.coefficients(rows)[0]).max()) for rows, _ in blocks())
    print(
        f"{count} x 300: {seconds:.1f} s in {passes[0] - 1} passes, one pass {time.perf_counter() - began:.1f} s, "
        f"max|C| {top:.4f}, log det {found.log_det:.2f}, peak {peak:.2f} GB ({before:.2f} before)"
    )


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of Li_train.xyz and Si_train.xyz")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--streamed", type=int, help="number of rows")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.streamed:
        streamed(arguments.streamed)
        return
    for name, rows in matrices(arguments.seeds, arguments.data):
        compare(name, rows, arguments.repeats)


if __name__ == "__main__":
    main()

"""Kill processes that compute labels at random instants, go on, and count labels that were lost or paid twice.

    python benchmarks/label_kills.py [--kills 200]

Every one of many small labellings is killed (SIGKILL) once at a random instant of its life, then resumed to its end.
Exits 1 if a label that was recorded was lost or computed again, or if more was computed twice than was in flight.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # children are forked, which threads of a parent do not survive
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "shared"))

import torch  # paid once, before the forks
from counted_labels import kill_labelling


def main() -> None:
    """Print one line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    began = time.monotonic()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        told = kill_labelling(Path(name), arguments.kills, seed=arguments.seed)
    print(
        f"{told['killed']} killed, {told['lost']} recorded labels lost or computed again, {told['twice']} computed "
        f"twice beyond the one in flight, {told['wrong']} with other results; {time.monotonic() - began:.0f} s"
    )
    sys.exit(1 if told["lost"] or told["twice"] or told["wrong"] else 0)


if __name__ == "__main__":
    main()

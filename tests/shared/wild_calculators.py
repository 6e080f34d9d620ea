"""An ASE calculator that misbehaves as the first atom's tag says; worker processes import it from here."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from ase.calculators.calculator import Calculator, all_changes


class Wild(Calculator):
    """Springs to the mean position, or one of `WAYS`."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012
    WAYS = (
        "well",
        "raise",
        "exit",
        "kill",
        "segfault",
        "hang",
        "memory",
        "nan",
        "child",
        "once",
        "unconverged",
    )

    def __init__(self, notes: str) -> None:
        super().__init__(notes=notes)
        self.notes = Path(notes)
        self.converged = True

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):  # type: ignore[no-untyped-def]
        super().calculate(atoms, properties, system_changes)
        way = self.WAYS[int(atoms.get_tags()[0])]
        with self.notes.open("a") as file:
            file.write(f"{way} {os.getpid()} {Path.cwd()} {os.environ['OMP_NUM_THREADS']}\n")
        print(f"iteration 7 of {way}", flush=True)
        Path("scratch-file").write_text("x")
        self.converged = way != "unconverged"
        if way == "raise":
            raise RuntimeError("the cycle has not converged")
        if way == "exit" or (way == "once" and self.notes.read_text().count("once") == 1):
            os._exit(3)
        if way == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if way == "segfault":
            ctypes.string_at(0)
        if way in ("hang", "child"):
            if way == "child":
                child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
                with self.notes.open("a") as file:
                    file.write(f"started {child.pid} . .\n")
            time.sleep(600)
        if way == "memory":
            held = []
            while True:
                held.append(np.ones(4_000_000))
                time.sleep(0.01)
        away = atoms.positions - atoms.positions.mean(0)
        energy = float("nan") if way == "nan" else 0.5 * float((away**2).sum())
        self.results = {"energy": energy, "forces": -away}

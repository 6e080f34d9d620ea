"""Cost of one step of one system: mlopt's fused and eager engines beside C++, JAX-MD, ASE and TorchSim, in one run.

    pip install -r benchmarks/requirements.txt
    python benchmarks/rollout_speed.py [--threads 2] [--batch 120] [--out FOLDER] [--gpu] [--quick]

Prints Markdown: microseconds a system and step (the best of several repeats, each half a second or longer, when all is
compiled), then how that grows with the number of atoms and with the batch. FOLDER gets all numbers (JSON) and a plot.
Every program takes the same steps (one energy with forces and one update) from the same starts, in a process of its
own, one after the other, on as many cores as --threads says. ASE moves one system on one core. --gpu measures
system-steps a second on a CUDA device instead.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rollout_peers import Case, child

COLUMNS = (
    *("fused float64", "fused float32", "eager", "C++"),
    *("JAX-MD float64", "JAX-MD float32", "ASE", "TorchSim"),
)
SYSTEMS = ("LJ13", "LJ38", "LJ75", "Au55", "Si64")
SIZES = (13, 38, 75, 150, 300, 600, 1000)
BATCHES = (1, 3, 10, 30, 100, 300, 1000)
GPU_COLUMNS = (
    *("fused float64", "fused float32", "eager CUDA float64", "eager CUDA float32"),
    *("fused CUDA float64", "fused CUDA float32"),
)
GPU_BATCHES = (100, 1000, 10_000, 100_000)
PACKAGES = ("torch", "numba", "jax", "jax-md", "optax", "ase", "torch-sim-atomistic")
#: from this size on the exponent of the growth is fitted
FIT_FROM = 75


class Bench:
    """Measures cases in processes of their own, and remembers what was measured."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.results: list[dict[str, Any]] = []

    def measure(self, peer: str, system: str, optimizer: str, batch: int) -> dict[str, Any]:
        """One case; the answer holds either ``us`` or ``unavailable``."""
        least, repeats = (0.02, 2) if self.arguments.quick else (0.5, self.arguments.repeats)
        case = Case(peer, system, optimizer, batch, self.arguments.threads, least, repeats)
        for known in self.results:
            if known["case"] == asdict(case):
                return known
        began = time.perf_counter()
        command = [sys.executable, __file__, "--only", json.dumps(asdict(case))]
        done = subprocess.run(command, capture_output=True, text=True, env=self._environment(peer))
        try:
            answer = json.loads(done.stdout.splitlines()[-1])
        except (IndexError, json.JSONDecodeError):
            lines = done.stderr.strip().splitlines() or [f"ended with {done.returncode}, without a word"]
            answer = {"unavailable": f"failed: {lines[-1][:200]}"}
        answer["case"] = asdict(case)
        self.results.append(answer)
        shown = answer.get("unavailable") or f"{answer['us']:.2f} us, {answer['steps']} steps"
        took = time.perf_counter() - began
        print(
            f"  {peer}, {system}, {optimizer}, batch {batch}: {shown} ({took:.0f} s)",
            file=sys.stderr,
            flush=True,
        )
        return answer

    def _environment(self, peer: str) -> dict[str, str]:
        """Threads are the caller's, for libraries that read them before anyone can say otherwise."""
        threads = str(self.arguments.threads)
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
        environment = dict(os.environ) | dict.fromkeys(names, threads)
        environment |= {"JAX_PLATFORMS": "cpu", "JAX_ENABLE_X64": "1" if "64" in peer else "0"}
        return environment | {"TF_CPP_MIN_LOG_LEVEL": "3"}

    def growth(
        self, name: str, peers: Sequence[str], points: Sequence[tuple[int, str, int]]
    ) -> dict[str, Any]:
        """Microseconds against a number; ``points`` are that number, the system and the batch."""
        curves: dict[str, list[tuple[int, float]]] = {}
        for peer in peers:
            for number, system, batch in points:
                answer = self.measure(peer, system, "adam", batch)
                if "us" not in answer:
                    break
                curves.setdefault(peer, []).append((number, answer["us"]))
        return {"name": name, "curves": curves}


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print Markdown."""
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print(flush=True)


def digits(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value == 0:
        return "0"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def main_table(bench: Bench) -> None:
    """Every peer on every system, with both optimizers."""
    rows, memory, notes = [], [], {}
    for system in SYSTEMS:
        for optimizer in ("adam", "fire"):
            answers = [bench.measure(peer, system, optimizer, bench.arguments.batch) for peer in COLUMNS]
            fused = answers[0].get("us")
            cells, grown = [], []
            for peer, answer in zip(COLUMNS, answers, strict=True):
                if "us" not in answer:
                    number = notes.setdefault(f"{peer}: {answer['unavailable']}", len(notes) + 1)
                    cells.append(f"– [{number}]")
                    grown.append("–")
                    continue
                ratio = f" ({digits(answer['us'] / fused)}×)" if fused and peer != COLUMNS[0] else ""
                cells.append(digits(answer["us"]) + ratio)
                grown.append("–" if answer["memory_mb"] is None else f"{answer['memory_mb']:.0f}")
            name = {"adam": "Adam", "fire": "FIRE"}[optimizer]
            rows.append([system, name, *cells])
            memory.append([system, name, *grown])
    print(
        "\nMicroseconds a system and step; in brackets, how many times that of the fused engine in float64.\n"
    )
    table(["system", "optimizer", *COLUMNS], rows)
    for text, number in notes.items():
        print(f"[{number}] {text}  ")
    print(
        "\nPeak memory, MB: how far the resident memory of the process grew beyond that of the loaded, compiled "
        f"program with its starts, for a batch of {bench.arguments.batch} (1 for ASE).\n"
    )
    table(["system", "optimizer", *COLUMNS], memory)


def growth_tables(bench: Bench) -> list[dict[str, Any]]:
    """Cost against the number of atoms, and against the batch."""
    few = 8 * bench.arguments.threads
    sizes, batches = (SIZES[:3], BATCHES[:3]) if bench.arguments.quick else (SIZES, BATCHES)
    every = bench.growth(
        "all pairs", ("fused float64", "fused float32", "eager"), [(n, f"LJ{n}", few) for n in sizes]
    )
    cut = bench.growth("cutoff", ("fused float64", "eager"), [(n, f"LJ{n}-cut", few) for n in sizes])
    curves = every["curves"] | {f"{peer}, cutoff 2.5": curve for peer, curve in cut["curves"].items()}
    print(
        f"\nMicroseconds a system and step against the number of atoms N: free LJ clusters, Adam, batch {few}.\n"
    )
    rows = [[name, *cells(curve, sizes), exponent(curve)] for name, curve in curves.items()]
    table(["", *(f"{n}" for n in sizes), f"exponent, N ≥ {FIT_FROM}"], rows)
    batch = bench.growth(
        "batch",
        ("fused float64", "fused float32", "eager", "JAX-MD float64"),
        [(b, "LJ38", b) for b in batches],
    )
    print("\nMicroseconds a system and step against the batch: LJ38, Adam.\n")
    table(
        ["", *map(str, batches)], [[name, *cells(curve, batches)] for name, curve in batch["curves"].items()]
    )
    return [{"name": "atoms", "curves": curves}, batch]


def cells(curve: Sequence[tuple[int, float]], numbers: Sequence[int]) -> list[str]:
    """One cell for each number, a dash where nothing was measured."""
    return [digits(dict(curve)[number]) if number in dict(curve) else "–" for number in numbers]


def exponent(curve: Sequence[tuple[int, float]]) -> str:
    """Of the power law through the larger sizes, by least squares of logarithms."""
    points = [(math.log(n), math.log(us)) for n, us in curve if n >= FIT_FROM]
    if len(points) < 2:
        return "–"
    mean_x, mean_y = (sum(one) / len(points) for one in zip(*points, strict=True))
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)
    return f"{slope:.2f}"


def gpu_table(bench: Bench) -> None:
    """System-steps a second against the batch, on the CPU and on a CUDA device."""
    import torch

    if not torch.cuda.is_available():
        print("\nno CUDA device: torch sees none, so the GPU was not measured.")
        return
    batches = GPU_BATCHES[:2] if bench.arguments.quick else GPU_BATCHES
    for system in ("LJ13", "LJ38", "LJ75", "Au55", "Si64"):
        for optimizer in ("adam", "fire"):
            rows, notes = [], []
            for peer in GPU_COLUMNS:
                row = []
                for batch in batches:
                    answer = bench.measure(peer, system, optimizer, batch)
                    row.append(f"{1e6 / answer['us']:,.0f}" if "us" in answer else "–")
                    if "us" not in answer:
                        notes.append(f"{peer}, batch {batch}: {answer['unavailable']}  ")
                        break
                rows.append([peer, *row, *["–"] * (len(batches) - len(row))])
            print(
                f"\nSystem-steps a second against the batch: {system}, {optimizer}, {torch.cuda.get_device_name()}.\n"
            )
            table(["", *(f"{b:,}" for b in batches)], rows)
            print("\n".join(notes))


def plot(growths: Sequence[dict[str, Any]], path: Path) -> None:
    """Both growths, with logarithmic axes."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(growths), figsize=(11, 4.2), layout="constrained")
    for axis, growth, label in zip(axes, growths, ("atoms", "batch (LJ38)"), strict=True):
        for name, curve in growth["curves"].items():
            axis.loglog(*zip(*curve, strict=True), marker="o", markersize=4, label=name)
        axis.set_xlabel(label)
        axis.set_ylabel("µs per system and step")
        axis.grid(True, which="major", alpha=0.3)
        axis.legend(frameon=False, fontsize=8)
    figure.savefig(path)


def versions() -> dict[str, str]:
    """Of the packages that are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def processor() -> str:
    """Its name, where Linux tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")


def main() -> None:
    """Print the tables, write the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--batch", type=int, default=120)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="folder for rollout_speed.json and rollout_speed.svg")
    parser.add_argument("--gpu", action="store_true", help="the table of a CUDA device instead of the others")
    parser.add_argument("--quick", action="store_true", help="tiny measurements: does everything work?")
    parser.add_argument("--only", help="one case, as JSON: what this script calls itself with")
    arguments = parser.parse_args()
    if arguments.only:
        child(arguments.only)
        return
    about = {
        "processor": processor(),
        "threads": arguments.threads,
        "batch": arguments.batch,
        "python": platform.python_version(),
        **versions(),
    }
    print("; ".join(f"{name} {value}" for name, value in about.items()), flush=True)
    bench, growths = Bench(arguments), []
    if arguments.gpu:
        gpu_table(bench)
    else:
        main_table(bench)
        growths = growth_tables(bench)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        stem = arguments.out / ("rollout_speed_gpu" if arguments.gpu else "rollout_speed")
        numbers = {"about": about, "results": bench.results, "growth": growths}
        stem.with_suffix(".json").write_text(json.dumps(numbers, indent=1) + "\n")
        if growths:
            plot(growths, stem.with_suffix(".svg"))


if __name__ == "__main__":
    main()

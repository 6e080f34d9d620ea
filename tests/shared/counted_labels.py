"""A labeller that writes down each label that it has computed, and kills of processes that use it."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import torch

from mlopt.core import Systems, setting
from mlopt.core.atoms.dataset import Dataset
from mlopt.core.protocols import Finished, Labeller
from mlopt.core.testing.kills import kill_and_resume
from mlopt.optimizers.labelling import Ledger, labelled


class Counting(Labeller):
    """Springs to the mean position; each label adds a line with its first coordinate to a file."""

    running = Labeller.running | {"paid", "seconds", "fails", "alone"}

    paid: str = setting(..., "file of what was computed")
    k: float = setting(1.0, "spring constant")
    seconds: float = setting(0.0, "of each label")
    fails: tuple[float, ...] = setting((), "first coordinates of structures that fail")
    alone: bool = setting(True, "one structure at a time")

    def label(self, systems: Systems) -> Dataset:
        segments = systems.segments
        away = systems.pos - segments.rows_of(segments.mean_rows(systems.pos))
        energy = 0.5 * self.k * segments.sum(away * away)
        first = systems.pos[systems.ptr[:-1], 0].tolist()
        descriptor = os.open(self.paid, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        for one in first:
            time.sleep(self.seconds)
            os.write(descriptor, f"{one}\n".encode())
        os.close(descriptor)
        bad = torch.tensor([one in self.fails for one in first], dtype=torch.bool)
        return Dataset(
            systems,
            torch.where(bad, torch.nan, energy),
            torch.where(segments.rows_of(bad)[:, None], torch.nan, -self.k * away),
            source=tuple("it was told to fail" if one else "springs" for one in bad.tolist()),
        )

    def stream(self, systems: Iterable[Systems]) -> Iterator[Finished | None]:
        if not self.alone:
            yield from super().stream(systems)
            return
        for index, one in enumerate(systems):
            yield Finished((index,), self.label(one), self.seconds)


def springs(count: int, n_atoms: int = 3) -> Systems:
    """Clusters of which the first coordinate is the number, plus one."""
    pos = torch.randn(64, n_atoms, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))[:count]
    pos[:, 0, 0] = torch.arange(count) + 1.0
    return Systems(pos.reshape(-1, 3), torch.full((count * n_atoms,), 18), torch.arange(count + 1) * n_atoms)


def payments(path: Path) -> list[float]:
    """What was computed, in order."""
    return [float(line) for line in path.read_text().split()] if path.exists() else []


def recorded(path: Path) -> set[float]:
    """First coordinates of the structures with a label in a ledger."""
    if not path.exists():
        return set()
    with Ledger(path) as ledger:
        found = ledger.dataset()
    return set(found.systems.pos[found.systems.ptr[:-1], 0].tolist())


def _work(folder: Path, systems: Systems, seconds: float) -> int:
    with Ledger(folder / "labels.db") as ledger:
        labeller = Counting(paid=str(folder / "paid"), seconds=seconds)
        found = labelled(ledger, labeller, systems)
    return 0 if bool(found.with_energy.all()) else 1


def kill_labelling(
    folder: Path, kills: int, count: int = 12, seconds: float = 0.01, seed: int = 0
) -> dict[str, int]:
    """Kill processes that label, each at a random instant, and go on.

    Return ``{"killed", "lost", "twice", "wrong"}``: processes killed; labels that were recorded and then gone or
    computed again; labels computed twice beyond the one in flight at the kill; runs whose labels in the end are not
    those of an undisturbed one.
    """
    systems, draw = springs(count), random.Random(seed)
    whole = folder / "whole"
    whole.mkdir()
    began = time.monotonic()
    assert kill_and_resume(partial(_work, whole, systems, seconds), delays=[]) == (0, 0)
    lasted = time.monotonic() - began
    told = {"killed": 0, "lost": 0, "twice": 0, "wrong": 0}
    for number in range(10 * kills):
        if told["killed"] == kills:
            break
        here = folder / f"run-{number}"
        here.mkdir()
        seen: list[
            tuple[set[float], int]
        ] = []  # what was recorded and how much was paid when a process began

        def work(here: Path = here) -> int:
            (here / f"begun-{len(list(here.glob('begun-*')))}").write_text(
                " ".join(map(str, sorted(recorded(here / "labels.db")))) + f"\n{len(payments(here / 'paid'))}"
            )
            return _work(here, systems, seconds)

        killed, status = kill_and_resume(work, delays=[draw.uniform(0, lasted)])
        told["killed"] += killed
        paid = payments(here / "paid")
        for begun in here.glob("begun-*"):
            known, _, spent = begun.read_text().partition("\n")
            seen.append(({float(one) for one in known.split()}, int(spent or 0)))
        told["lost"] += sum(len(known & set(paid[spent:])) for known, spent in seen)
        told["twice"] += max(0, sum(times > 1 for times in Counter(paid).values()) - killed)
        told["wrong"] += status != 0 or labels(here / "labels.db") != labels(whole / "labels.db")
    return told


def labels(path: Path) -> dict[str, tuple[float, bytes]]:
    """Energy and forces in a ledger by structure, bit for bit."""
    with Ledger(path) as ledger:
        found = ledger.dataset()
    return {
        key: (float(found.energy[place]), found.select([place]).force.numpy().tobytes())
        for place, key in enumerate(found.keys())
    }

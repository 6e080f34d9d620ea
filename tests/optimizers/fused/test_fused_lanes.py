"""Kernels with many lanes, in plain Python: all lanes meet at the same barriers, none reads or writes what another has
written without `sync` between, and the outcome is that of the eager engine.
"""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from mlopt.core.atoms.systems import Systems
from mlopt.core.batch.random import problem_keys
from mlopt.core.driver.driver import Driver
from mlopt.core.driver.progress import Progress
from mlopt.core.driver.stop import Stop
from mlopt.core.kernels import lanes
from mlopt.core.landscapes.landscape import AtomsLandscape
from mlopt.core.landscapes.potential import Potential
from mlopt.core.protocols.optimizer import Optimizer
from mlopt.optimizers import (
    LBFGS,
    Adam,
    Angular,
    BasinHopping,
    Bussi,
    Displacement,
    Exchange,
    Fire,
    GradientDescent,
    Langevin,
    NoseHoover,
    VelocityVerlet,
)
from mlopt.optimizers.fused import engine, launch
from mlopt.optimizers.fused.compiled import ARRAYS
from mlopt.optimizers.fused.writer import Writer
from mlopt.optimizers.learned.step.optimizer import LearnedFamily
from mlopt.optimizers.moves.cluster import Surface, Symmetrise, Twist
from mlopt.potentials import Gupta, LennardJones, StillingerWeber

LANES = 3
LJ = LennardJones()


class Team:
    """Threads that work on one system, and what each has read and written since the last barrier."""

    def __init__(self) -> None:
        self.local = threading.local()
        self.barrier = threading.Barrier(LANES, self.meet, timeout=60.0)
        self.places: list[Any] = [None] * LANES
        self.values: list[Any] = [0.0] * LANES
        self.result: Any = None
        self.read: list[set[int]] = [set() for _ in range(LANES)]
        self.written: list[set[int]] = [set() for _ in range(LANES)]
        self.complaints: list[str] = []

    def me(self) -> int:
        return self.local.lane  # type: ignore[no-any-return]

    def meet(self) -> None:
        """Called by one lane while all wait."""
        if len(set(self.places)) > 1:
            self.complaints.append(f"lanes wait at different barriers: {self.places}")
        for one in range(LANES):
            for other in range(LANES):
                if one != other and (both := self.written[one] & (self.read[other] | self.written[other])):
                    self.complaints.append(f"before {self.places[0]}: a race for {sorted(both)[:5]}")
        if self.complaints:
            raise RuntimeError
        combine = self.places[0][0]
        # what a sum needs has been read; what was written need not be there yet
        kept = self.written if combine is not None else [set() for _ in range(LANES)]
        self.read, self.written = [set() for _ in range(LANES)], kept
        self.result = combine(self.values) if combine is not None else None

    def wait(self, combine: Callable[[Any], Any] | None, value: Any = 0.0) -> Any:
        callers, frame = [], sys._getframe(2)
        while frame.f_code.co_name != "chunk" and frame.f_back is not None:
            callers.append(frame.f_lineno)
            frame = frame.f_back
        self.places[self.me()], self.values[self.me()] = (combine, *callers), value
        self.barrier.wait()
        return self.result

    def names(self) -> dict[str, Any]:
        """What a target defines."""

        def largest(values: list[Any]) -> Any:
            return max(values) if all(one == one for one in values) else math.nan

        total, highest = (lambda value, c=c: self.wait(c, value) for c in (sum, largest))
        same: Callable[[Any], Any] = lambda one: one  # noqa: E731
        return {
            "jit": same,
            "view": same,
            "entry": same,
            "team": lambda: 0,
            "teams": lambda: 1,
            "own": lambda array, s: array,
            "lane": self.me,
            "lanes": lambda: LANES,
            "sync": lambda: self.wait(None),
            "total64": total,
            "highest64": highest,
            "exp64": np.exp,
            "log64": np.log,
            "isfinite": math.isfinite,
            "uniform": lanes.uniform,
            "normal": lanes.normal,
        }

    def run(self, work: Callable[[], None]) -> None:
        """By all lanes at once."""
        failed: list[BaseException] = []

        def one(lane: int) -> None:
            self.local.lane = lane
            try:
                with np.errstate(all="ignore"):
                    work()
                    self.places[lane] = (None, "end")
                    self.barrier.wait()
            except threading.BrokenBarrierError:
                pass
            except BaseException as error:
                failed.append(error)
                self.barrier.abort()

        threads = [threading.Thread(target=one, args=(lane,)) for lane in range(LANES)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not self.complaints, self.complaints
        if failed:
            raise failed[0]
        assert not self.barrier.broken, "somebody waited in vain"


class Watched:
    """An array, or a part of one, whose elements have numbers."""

    def __init__(self, team: Team, array: Any, numbers: Any) -> None:
        self.team, self.array, self.numbers = team, array, numbers

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, key: Any) -> Any:
        found = self.array[key]
        if isinstance(found, np.ndarray):
            return Watched(self.team, found, self.numbers[key])
        self.team.read[self.team.me()].add(int(self.numbers[key]))
        return found

    def __setitem__(self, key: Any, value: Any) -> None:
        self.team.written[self.team.me()].add(int(self.numbers[key]))
        self.array[key] = value


class InPython(launch.Launcher):
    """The text of a kernel, run as it stands."""

    target = "cpu"

    def refusal(self) -> str | None:
        return None

    def run(self, kernel: str, work: launch.Work) -> float:
        team, given, numbered = Team(), list[Watched](), 0
        own = {name: torch.zeros(size, dtype=dtype) for name, (size, dtype) in work.space.items()}
        for name in ARRAYS:
            array = (own[name] if name in own else work.arrays[name]).numpy()
            numbers = np.arange(numbered, numbered + array.size).reshape(array.shape)
            given.append(Watched(team, array, numbers))
            numbered += array.size
        space: dict[str, Any] = team.names()
        lines = kernel.splitlines()
        text = "\n".join("" if line.startswith("from mlopt") else line for line in lines)
        exec(compile(text, "kernel", "exec"), space)  # noqa: S102
        team.run(lambda: space["chunk"](0, work.systems, work.n, work.calls, work.steps, *given))
        self.watch(work)
        return 1.0  # seconds, as the engine believes: slices stay short

    def watch(self, work: launch.Work) -> None:
        """For tests that look between two slices."""


@pytest.fixture(autouse=True)
def _in_python(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(launch.LAUNCHERS, "cpu", InPython())
    monkeypatch.setattr(engine, "load", lambda text, target, announce: text)
    yield


def corners(sizes: list[int], a: float = 1.05, z: tuple[int, ...] = (18,), fixed: int = 0) -> Systems:
    """Clusters whose atoms are corners of a distorted cube, of the elements ``z`` in turn."""
    number = torch.cat([torch.arange(n) for n in sizes])
    grid = torch.stack([number % 2, number // 2 % 2, number // 4], -1).to(torch.float64)
    noise = torch.rand(grid.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ptr = torch.tensor([0, *sizes]).cumsum(0)
    return Systems(a * (grid + 0.2 * noise), torch.tensor(z)[number % len(z)], ptr, fixed=number < fixed)


def crystal(a: float, symbol: int) -> Systems:
    """A small periodic box with images."""
    one = corners([6], a, (symbol,))
    cell, pbc = 2.2 * a * torch.eye(3, dtype=torch.float64)[None], torch.tensor([[True, True, False]])
    return Systems(one.pos, one.z, one.ptr, cell, pbc)


def check(
    optimizer: Optimizer,
    potential: Potential,
    systems: Systems,
    calls: int,
    change: Callable[[Progress], None] = lambda progress: None,
) -> Progress:
    """From the same beginning, changed, both engines get to the same end."""
    done = []
    for name in ("eager", "fused"):
        driver = Driver(AtomsLandscape(systems, potential), optimizer, Stop(calls), 2, name)
        progress = driver.begin(systems.pos.clone(), problem_keys(0, torch.arange(len(systems))))
        change(progress)
        done.append(driver.advance(progress))
    (ours, about), (theirs, about_theirs) = (one.to_checkpoint() for one in done)
    assert about == about_theirs and list(ours) == list(theirs)
    for name, one in ours.items():
        torch.testing.assert_close(
            theirs[name], one, rtol=1e-7, atol=1e-7, equal_nan=True, msg=lambda m, n=name: f"{n}: {m}"
        )
    return done[1]


LOCAL = {
    "gradient descent": GradientDescent(max_step=0.1),
    "adam": Adam(),
    "fire": Fire(delay=2),
    "fire, original": Fire(variant="original", max_step=0.1, delay=2),
    "fire, ase": Fire(variant="ase", max_step=0.1, delay=2),
    "lbfgs": LBFGS(memory=3),
    "velocity-verlet": VelocityVerlet(time_step=0.01, initial_temperature=0.2),
    "langevin": Langevin(time_step=0.01, temperature=0.2, friction=2.0),
    "bussi": Bussi(time_step=0.01, temperature=0.2, relaxation_time=0.05),
    "nose-hoover": NoseHoover(time_step=0.01, temperature=0.2, relaxation_time=0.05),
}


@pytest.mark.parametrize("name", LOCAL)
def test_local_optimizers(name: str) -> None:
    check(LOCAL[name], LJ, corners([5, 7, 5], fixed=1), 16)


def test_a_network_for_each_system() -> None:
    """Of unlike sizes, on one and on two tiles, two kinds, some atoms fixed."""
    family = LearnedFamily(species=["Ar", "Kr"], hidden=4)
    noise = torch.randn(3, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    theta = family.start(0) + 0.2 * torch.sin(noise * torch.arange(len(family.start(0))))
    check(family.optimizer(theta), LJ, corners([5, 33, 5], z=(18, 36), fixed=1), 4)


def test_a_network_and_images() -> None:
    family = LearnedFamily(hidden=4)
    theta = family.start(0) + 0.2 * torch.sin(torch.arange(len(family.start(0))))
    check(family.optimizer(theta), LennardJones(cutoff=2.1, shift="force"), crystal(1.1, 18), 3)


def test_lbfgs_that_goes_back_and_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the point before had been much better: each further one goes uphill, until all is forgotten."""

    def lower(progress: Progress) -> None:
        state = progress.state
        progress.state = replace(
            state, energy=torch.full_like(state.energy, -100.0), shrinks=torch.zeros_like(state.shrinks)
        )

    back: list[int] = []
    monkeypatch.setattr(InPython, "watch", lambda self, work: back.append(int(work.arrays["counts"][0, 0])))
    monkeypatch.setattr(engine, "_FIRST_STEPS", 1)
    monkeypatch.setattr(engine, "_SLICE", 1e-9)
    check(LBFGS(memory=3), LJ, corners([5]), 12, lower)
    assert max(back) == 8 and back[-1] == 0, "so often back, and then on"


MOVES = {
    "displacement": [Displacement(step=0.3)],
    "normal and angular": [
        Displacement(distribution="normal", probability=0.5),
        Angular(probability=0.7, threshold=0.8),
    ],
    "exchange": [Exchange(pairs=2, probability=0.8), Displacement(step=0.1)],
    "of clusters": [Twist(), Symmetrise(), Surface(atoms=2, trials=8), Displacement(step=0.1)],
}


# not for longer: in which sector an atom on the axis lies is decided by rounding, also on one lane
@pytest.mark.parametrize("name", MOVES)
def test_basin_hopping(name: str) -> None:
    optimizer = BasinHopping(
        quench=GradientDescent(max_step=0.1),
        quench_calls=3,
        moves=MOVES[name],
        container=0.7,
        adapt_step=name == "displacement",
        temperature=0.5,
    )
    progress = check(optimizer, LJ, corners([6, 5], z=(18, 36), fixed=int(name == "exchange")), 21)
    assert progress.outcome.tally.quenches.tolist() == [6, 6]


def test_basin_hopping_with_lbfgs_as_it_comes() -> None:
    check(BasinHopping(quench_calls=6, combine="one"), LJ, corners([6]), 20)


POTENTIALS = {
    "all pairs of two kinds": (Gupta(), corners([6, 5], 2.8, (79, 29))),
    "gupta, cut": (Gupta(cutoff=4.5), crystal(2.8, 79)),
    "pairs, cut": (LennardJones(cutoff=2.1, shift="force"), crystal(1.1, 18)),
    "few pairs, cut": (LennardJones(cutoff=1.5, shift="energy"), corners([7])),
    "silicon": (StillingerWeber(), crystal(2.4, 14)),
}


@pytest.mark.parametrize("name", POTENTIALS)
def test_potentials(name: str) -> None:
    potential, systems = POTENTIALS[name]
    check(GradientDescent(max_step=0.4), potential, systems, 5)


def part(x: Any, start: int) -> Any:
    return x[start:]


def element(x: Any, start: int) -> Any:
    return x[start]


def test_functions_that_return_a_part_of_an_array_are_marked() -> None:
    """CUDA knows no calls of them: they are inlined there."""
    writer = Writer()
    writer.function(part)
    writer.function(element)
    assert "@view\ndef part_0" in writer.text and "@jit\ndef element_0" in writer.text


@pytest.mark.parametrize(("function", "message"), [("race", "a race for"), ("sync", "different barriers")])
def test_what_is_looked_for_is_found(function: str, message: str) -> None:
    team = Team()
    x, lane, sync = Watched(team, np.zeros(9), np.arange(9)), team.me, team.names()["sync"]

    def work() -> None:
        if function == "race":
            x[lane()] = 0.0
            x[5 + lane()] = x[lane() + 1]
        elif lane() == 0:
            sync()

    with pytest.raises(AssertionError, match=message):
        team.run(work)

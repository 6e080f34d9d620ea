"""The learned optimizer in the fused engine: the steps of the eager one, every system with its own network."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from mlopt.core.atoms.systems import Systems
from mlopt.core.batch.random import problem_keys
from mlopt.core.driver.driver import Driver
from mlopt.core.driver.progress import Progress
from mlopt.core.driver.stop import Stop
from mlopt.core.errors import InputError
from mlopt.core.landscapes.landscape import AtomsLandscape
from mlopt.core.landscapes.potential import Potential
from mlopt.optimizers import BasinHopping, SphereStart
from mlopt.optimizers.fused import engine
from mlopt.optimizers.learned.step.optimizer import LearnedFamily
from mlopt.potentials import LennardJones, StillingerWeber

pytest.importorskip("numba")

LJ = LennardJones()


def noisy(family: LearnedFamily, n: int | None, noise: float = 0.1) -> torch.Tensor:
    """As a training perturbs it; with larger steps than at the start."""
    start = family.start(0)
    shape = start.shape if n is None else (n, *start.shape)
    theta = start + noise * torch.randn(
        shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    theta[..., -1] += 2.0
    return theta


def clusters(sizes: list[int], dtype: torch.dtype = torch.float64, fixed: int = 0) -> Systems:
    number = torch.cat([torch.arange(n) for n in sizes])
    z, ptr = torch.where(number % 3 == 1, 36, 18), torch.tensor([0, *sizes]).cumsum(0)
    return Systems(torch.zeros(len(z), 3, dtype=dtype), z, ptr, fixed=number < fixed)


def assert_steps_agree(
    optimizer: Any, potential: Potential, systems: Systems, x: torch.Tensor, steps: int, tolerance: float
) -> Progress:
    """From every eager progress, one step with both engines; then the fused engine alone, to the same end."""
    landscape, n = AtomsLandscape(systems, potential), len(systems)
    eager, fused = (Driver(landscape, optimizer, Stop(steps + 1), 1, name) for name in ("eager", "fused"))
    begun = progress = eager.begin(x, problem_keys(0, torch.arange(n)))
    begun = copy.deepcopy(begun)
    for _ in range(steps):
        found = fused.advance(copy.deepcopy(progress), pause=lambda: True)
        progress = eager.advance(progress, pause=lambda: True)
        same(found, progress, tolerance)
    whole = fused.advance(begun, pause=None)
    assert whole.calls == progress.calls + 1
    return progress


def same(found: Progress, expected: Progress, tolerance: float) -> None:
    (ours, about), (theirs, about_theirs) = found.to_checkpoint(), expected.to_checkpoint()
    assert about == about_theirs
    for name, one in theirs.items():
        scale = float(one.abs().max()) if one.is_floating_point() and one.numel() else 0.0
        torch.testing.assert_close(
            ours[name], one, rtol=tolerance, atol=tolerance * scale, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.fixture(autouse=True)
def _single_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_FIRST_STEPS", 1)


CASES: dict[str, tuple[dict[str, Any], bool]] = {
    "all": ({}, True),
    "one network for all": ({}, False),
    "species": ({"species": ["Ar", "Kr"]}, True),
    "bare": (
        {
            "position": False,
            "adam": False,
            "moments": False,
            "radial": False,
            "number": False,
            "sines": False,
        },
        True,
    ),
    "rest": (
        {"gradient": False, "decays": [0.5, 0.95], "hidden": 8, "activation": "tanh", "cutoff": 4.0},
        True,
    ),
}
#: each compiles a kernel of its own
QUICK = ("all",)


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
)
def test_steps_agree(name: str) -> None:
    """Of one, two and three tiles, the last one full or not."""
    given, each = CASES[name]
    systems = clusters([5, 33, 8, 16, 38], fixed=1)
    x = SphereStart().sample(systems, torch.ones(100, dtype=torch.float64), problem_keys(0, torch.arange(5)))
    family = LearnedFamily(**given)
    optimizer = family.optimizer(noisy(family, 5 if each else None))
    progress = assert_steps_agree(optimizer, LJ, systems, x, 6, 1e-10)
    assert float((progress.x - x).abs().amax()) > 1e-3
    fixed = systems.fixed
    assert torch.equal(progress.x[fixed], x[fixed])


@pytest.mark.slow
def test_single_precision() -> None:
    systems = clusters([5, 13], torch.float32)
    x = SphereStart().sample(systems, torch.ones(18), problem_keys(0, torch.arange(2))).float()
    family = LearnedFamily()
    assert_steps_agree(family.optimizer(noisy(family, 2)), LJ, systems, x, 5, 2e-4)


@pytest.mark.slow
def test_crystals() -> None:
    """Neighbours in images, atoms in other cells, a slab; no positions."""
    a, generator = 5.43, torch.Generator().manual_seed(0)
    base = torch.tensor(
        [[0, 0, 0], [0, 2, 2], [2, 0, 2], [2, 2, 0], [1, 1, 1], [1, 3, 3], [3, 1, 3], [3, 3, 1]]
    )
    one = base.double() * a / 4
    x = torch.cat([one, one]) + 0.15 * torch.randn(16, 3, generator=generator, dtype=torch.float64)
    x[3] += torch.tensor([a, -2 * a, 0.0])
    cell = a * torch.eye(3, dtype=torch.float64).repeat(2, 1, 1)
    cell[0, 1, 0] = 0.8
    pbc = torch.tensor([[True, True, True], [True, True, False]])
    systems = Systems(x, torch.full((16,), 14), torch.tensor([0, 8, 16]), cell, pbc)
    family = LearnedFamily()
    assert_steps_agree(family.optimizer(noisy(family, 2)), StillingerWeber(), systems, x, 5, 1e-9)


@pytest.mark.slow
def test_the_lowest_point_of_the_way_counts() -> None:
    """In both engines alike, and where it is the energy is."""
    systems = clusters([5, 7, 6])
    landscape, optimizer = (
        AtomsLandscape(systems, LJ),
        LearnedFamily().optimizer(noisy(LearnedFamily(), 3, 0.3)),
    )
    x, keys = (
        SphereStart().sample(systems, landscape.diameter, problem_keys(0, torch.arange(3))),
        torch.arange(3),
    )
    ended = {}
    for name in ("eager", "fused"):
        for lowest in (None, False):
            driver = Driver(landscape, optimizer, Stop(12), 1, name, lowest=lowest)
            tally = driver.advance(driver.begin(x, keys)).outcome.tally
            torch.testing.assert_close(landscape.evaluate(tally.x).energy, tally.energy)
            ended[name, lowest] = tally.energy
    assert bool((ended["fused", None] < ended["fused", False] - 1e-3).any())
    for lowest in (None, False):
        torch.testing.assert_close(ended["fused", lowest], ended["eager", lowest], rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_a_population_is_many_alone_bit_for_bit() -> None:
    """And resumes so: a rollout is a function of theta and start."""
    systems = clusters([13] * 6)
    x = SphereStart().sample(systems, torch.ones(78, dtype=torch.float64), problem_keys(0, torch.arange(6)))
    landscape, family = AtomsLandscape(systems, LJ), LearnedFamily()
    theta = noisy(family, 6)

    def run(problems: list[int], pauses: int = 0) -> torch.Tensor:
        index = torch.tensor(problems)
        part, rows = landscape.select(index), landscape.segments.select(index)[1]
        own = theta[index] if len(problems) > 1 else theta[problems[0]]
        driver = Driver(part, family.optimizer(own), Stop(60), 1, "fused", lowest=False)
        progress = driver.begin(x[rows], problem_keys(0, index))
        for _ in range(pauses):
            asked: list[int] = []
            progress = driver.advance(progress, pause=lambda asked=asked: bool(asked.append(0) or True))
            tensors, about = progress.to_checkpoint()
            progress = driver.begin(x[rows], problem_keys(0, index))
            progress.load_checkpoint({name: one.clone() for name, one in tensors.items()}, about)
        return driver.result(driver.advance(progress)).x

    whole = run([0, 1, 2, 3, 4, 5])
    assert torch.equal(run([4, 1]), torch.cat([whole[52:65], whole[13:26]]))
    assert torch.equal(run([3]), whole[39:52])
    assert torch.equal(run([0, 1, 2, 3, 4, 5], pauses=3), whole)
    assert not torch.equal(whole[:13], x[:13])


@pytest.mark.slow
def test_it_can_be_the_quench_of_a_search() -> None:
    systems = clusters([6, 6, 6])
    x = SphereStart().sample(systems, torch.ones(18, dtype=torch.float64), problem_keys(0, torch.arange(3)))
    family = LearnedFamily()
    search = BasinHopping(quench=family.optimizer(noisy(family, 3)), quench_calls=4)
    progress = assert_steps_agree(search, LJ, systems, x, 14, 1e-8)
    assert progress.state.hops.tolist() == [3, 3, 3]


def test_what_has_no_kernel_says_so() -> None:
    systems = clusters([5])
    for given, message in (
        ({"equivariant": True}, "offers no kernel with `equivariant`"),
        ({"messages": 2}, "offers no kernel with `messages`"),
    ):
        family = LearnedFamily(**given)
        with pytest.raises(InputError, match=message):
            Driver(AtomsLandscape(systems, LJ), family.optimizer(family.start()), Stop(5), 1, "fused")


def test_kernels_with_theta_of_one_and_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """One row where all problems share theta: nothing is copied for each."""
    systems = clusters([5, 5, 5])
    landscape, family = AtomsLandscape(systems, LJ), LearnedFamily()
    shapes = []
    monkeypatch.setattr(engine, "load", lambda text, target, announce: text)
    for n in (None, 3):
        driver = Driver(landscape, family.optimizer(noisy(family, n)), Stop(5), 1, "fused")
        progress = driver.begin(systems.pos, problem_keys(0, torch.arange(3)))
        program = engine._Program.of(landscape, driver.optimizer, progress, driver.stop, print)
        part = program.select(torch.tensor([2, 0]))
        shapes.append((tuple(program.theta.shape), tuple(part.theta.shape)))
        if n:
            assert torch.equal(part.theta, program.theta[[2, 0]])
    p = 2693 + 2 * 32 + 3  # inputs filled up to a multiple of four, and the decays
    assert shapes == [((1, p), (1, p)), ((3, p), (2, p))]

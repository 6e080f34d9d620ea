"""What the fused engine writes and keeps: kernels as source, random numbers and exponentials, refusals, the cache."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mlopt.core.atoms.systems import Systems
from mlopt.core.batch import random as core_random
from mlopt.core.batch.segments import Segments
from mlopt.core.driver.driver import Driver
from mlopt.core.driver.stop import Stop
from mlopt.core.errors import InputError
from mlopt.core.kernels import lanes
from mlopt.core.kernels.kernel import Kernel, PotentialKernel
from mlopt.core.kernels.lanes import theta_of
from mlopt.core.landscapes.evaluation import Evaluation
from mlopt.core.landscapes.landscape import AtomsLandscape, FunctionLandscape, Landscape
from mlopt.core.landscapes.potential import Potential
from mlopt.core.protocols.move import Move
from mlopt.core.protocols.optimizer import Optimizer
from mlopt.optimizers import LBFGS, Adam, BasinHopping, RandomRestarts
from mlopt.optimizers.fused.writer import Writer
from mlopt.optimizers.fused.written import written
from mlopt.potentials import LennardJones
from mlopt.potentials.kernels import pair_kernel

numba = pytest.importorskip("numba")

KEYS = [0, 1, -1, 2**63 - 1, -(2**63), 123456789, *torch.randint(-(2**62), 2**62, (40,)).tolist()]
HALF, NOTHING, BOTTOM, LIST, ONE = 0.5, math.nan, -math.inf, [1.0], 1


def test_uniform_numbers_are_those_of_core() -> None:
    from mlopt.optimizers.fused import cpu

    uniform = numba.njit(lambda key, counter: cpu.uniform(key, counter))
    keys = torch.tensor(KEYS)
    for counter in (0, 1, 1000, 2**31, 2**40):
        expected = core_random.uniform(keys, torch.full_like(keys, counter), 7)
        for row, key in enumerate(KEYS):
            plain = [lanes.uniform(key, counter + 1 + i) for i in range(7)]
            fast = [float(uniform(np.int64(key), np.int64(counter + 1 + i))) for i in range(7)]
            assert plain == fast == expected[row].tolist()


def test_normal_numbers_are_those_of_core() -> None:
    """Torch has a logarithm and a cosine of its own: equal to the last bits."""
    from mlopt.optimizers.fused import cpu

    normal = numba.njit(lambda key, counter, apart: cpu.normal(key, counter, apart))
    keys = torch.tensor(KEYS)
    expected = core_random.normal(keys, torch.full_like(keys, 5), 9)
    plain = [[lanes.normal(key, 6 + i, 9) for i in range(9)] for key in KEYS]
    fast = [[float(normal(np.int64(key), np.int64(6 + i), 9)) for i in range(9)] for key in KEYS]
    assert plain == fast
    torch.testing.assert_close(torch.tensor(plain, dtype=torch.float64), expected, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("bits", [64, 32])
def test_exponential(bits: int) -> None:
    from mlopt.optimizers.fused import cpu

    inner, real = {64: (cpu.exp64, np.float64), 32: (cpu.exp32, np.float32)}[bits]
    exp = numba.njit(lambda x: inner(x))
    low, high = {64: (-708.0, 709.0), 32: (-87.0, 88.0)}[bits]
    x = np.concatenate([np.linspace(low, high, 20_001), np.linspace(-2, 2, 4_001), [0.0, -0.0, low, high]])
    x = x.astype(real)
    found = np.array([exp(one) for one in x], dtype=real)
    exact = np.exp(x.astype(np.longdouble))
    assert np.all(np.abs(found - exact) <= 2.0 * np.spacing(exact.astype(real)))
    assert exp(real(0.0)) == 1.0
    special = np.array([np.inf, -np.inf, np.nan, high + 1.0, low - 1.0, 1e30, -1e30], dtype=real)
    expected = [np.inf, 0.0, np.nan, np.inf, 0.0, np.inf, 0.0]
    np.testing.assert_array_equal([exp(one) for one in special], expected)


@pytest.mark.parametrize("bits", [64, 32])
def test_logarithm(bits: int) -> None:
    from mlopt.optimizers.fused import cpu

    inner, real = {64: (cpu.log64, np.float64), 32: (cpu.log32, np.float32)}[bits]
    log = numba.njit(lambda x: inner(x))
    info = np.finfo(real)
    powers = np.exp2(np.linspace(info.minexp, info.maxexp - 0.1, 20_001))
    x = np.concatenate([powers, np.linspace(0.3, 3, 9_001), [1.0, 2.0, 0.5]])
    x = np.concatenate(
        [x.astype(real), np.array([info.smallest_subnormal, info.tiny / 8, info.max], dtype=real)]
    )
    found = np.array([log(one) for one in x], dtype=real)
    exact = np.log(x.astype(np.longdouble))
    assert np.all(np.abs(found - exact) <= 1.5 * np.spacing(np.abs(exact).astype(real)))
    assert log(real(1.0)) == 0.0
    special = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0, -1.0], dtype=real)
    expected = [np.inf, np.nan, np.nan, -np.inf, -np.inf, np.nan]
    np.testing.assert_array_equal([log(one) for one in special], expected)


def test_finite_is_seen_through_sums() -> None:
    """Where sums may be reordered the compiler takes Numba's own `isfinite` of a sum for true."""
    from mlopt.optimizers.fused import cpu

    isfinite = cpu.isfinite

    @numba.njit(fastmath=cpu.FAST, error_model="numpy")
    def check(a: float, b: float) -> bool:
        return isfinite(a + b)  # type: ignore[no-any-return]

    assert check(1.0, 2.0) and check(1e308, -1e308)
    for a, b in [(math.inf, 1.0), (1.0, math.nan), (math.inf, -math.inf), (-math.inf, 0.0), (1e308, 1e308)]:
        assert not check(a, b)


def described(x: float, many: Any, settings: Any) -> float:
    """Dropped."""
    a: float = 2.0 * HALF
    if x == BOTTOM or x != x:
        a = NOTHING
    for i in range(ONE):
        a += math.exp(x) + settings[1] * many[i] + math.pi
    return float(a)


def caller(x: float, many: Any, settings: Any) -> float:
    return described(x, many, settings) + inner(x) + lanes.total(x)


def inner(x: float) -> float:
    return -x


def other_inner(x: float) -> float:
    return x * HALF


def test_what_is_written() -> None:
    writer = Writer()
    writer.kernel(Kernel(inner, (0.0,)))
    name = writer.kernel(Kernel(described, (1.0, 2.0), {"ONE": 3}))
    text = writer.text
    assert "Dropped" not in text and "Any" not in text and name == "described_0"
    assert "real(2.0) * real(0.5)" in text and "-real(inf)" in text and "a = real(np.nan)" in text
    assert "range(3)" in text and "settings[0][2]" in text and "many[unsigned(i)]" in text
    assert "+ exp(x)" in text or "exp(x) +" in text
    assert f"real({math.pi!r})" in text and "real(a)" in text
    assert [one.settings for one in writer.kernels] == [(0.0,), (1.0, 2.0)]


def weighted(x: Any, settings: Any) -> float:
    numbers = theta_of(settings)
    return numbers[0] * x + settings[0]  # type: ignore[no-any-return]


def test_weights_of_kernels_lie_side_by_side() -> None:
    writer = Writer()
    writer.kernel(Kernel(weighted, (1.0,), theta=torch.zeros(3)))
    writer.kernel(Kernel(weighted, (2.0,), theta=torch.zeros(4, 2)))
    assert "settings[1][0:3]" in writer.text and "settings[1][3:5]" in writer.text
    assert "settings[0][0]" in writer.text and "settings[0][1]" in writer.text
    with pytest.raises(InputError, match="`theta_of`: its kernel has no theta"):
        Writer().kernel(Kernel(weighted, (1.0,)))
    assert weighted(2.0, [1.0, [3.0]]) == 7.0


def plain_caller(x: float) -> float:
    return inner(x) + total_of(x)


def total_of(x: float) -> float:
    return other(x) + 1.0


def other(x: float) -> float:
    """Stands for a part."""
    return 0.0


def test_functions_are_written_once_and_parts_put_in() -> None:
    writer = Writer()
    writer.function(plain_caller, {"other": other_inner})
    writer.function(plain_caller, {"other": other_inner})
    writer.function(plain_caller, {"other": inner})
    assert writer.text.count("def inner_") == 1 and writer.text.count("def other_inner_") == 1
    assert writer.text.count("def plain_caller_") == 2 and writer.text.count("def total_of_") == 2
    assert "other(" not in writer.text


def in_turn(x: float, settings: Any) -> None:
    """Stands for several."""


def calls_them(x: float, settings: Any) -> float:
    in_turn(x, settings)
    return other(x) + settings[0]


def test_one_text_serves_kernels_that_differ_in_their_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """And their numbers come in the order in which the text reads them."""

    def made(first: float, size: int = 3, kinds: int = 2) -> Kernel:
        ours, theirs = torch.full((size,), first), torch.full((2, 4), -first)
        several = [
            Kernel(weighted, (first + 1.0,), theta=ours),
            Kernel(weighted, (first + 2.0,), theta=theirs),
        ]
        parts = {"other": Kernel(inner, (first + 3.0,)), "in_turn": several}
        return Kernel(calls_them, (first,), {"ONE": kinds}, parts)

    one = written(made(1.0))
    assert one.settings == [1.0, 2.0, 3.0, 4.0]
    assert [float(weights.flatten()[0]) for weights in one.theta] == [1.0, -1.0]
    assert [line for line in one.text.splitlines() if "settings[0][2]" in line]
    assert written(made(1.0, size=5)).text != one.text, "weights begin elsewhere"
    assert written(made(1.0, kinds=3)).settings == one.settings
    monkeypatch.delattr(Writer, "kernel")
    other = written(made(7.0))
    assert other.text is one.text and other.name == one.name
    assert other.settings == [7.0, 8.0, 9.0, 10.0] and float(other.theta[1][0, 0]) == -7.0


def takes_list(x: float) -> float:
    return x + LIST[0]


def calls_method(x: Any) -> Any:
    return x.sum()


def unknown_math(x: float) -> float:
    return math.gamma(x)


def from_the_end(x: Any) -> Any:
    return x[-1]


def settings_by_variable(x: int, settings: Any) -> Any:
    return settings[x]


def made() -> Callable[..., Any]:
    space: dict[str, Any] = {}
    exec("def nowhere(r2):\n    return 0.0, 0.0", space)  # noqa: S102
    return space["nowhere"]  # type: ignore[no-any-return]


FORBIDDEN = {
    "`LIST` is neither a number nor a plain function": takes_list,
    "`x.sum`: only functions of `math` have a dot in a kernel": calls_method,
    "`math.gamma` is not known to kernels; they know acos": unknown_math,
    "no negative indices": from_the_end,
    "`settings` must be indexed by plain integers": settings_by_variable,
    "the source of kernel function nowhere cannot be read; kernels must stand in a file": made(),
    "is no plain function, which a kernel has to be": lambda r2: (0.0, 0.0),
    "is no plain Python function": math.sqrt,
}


@pytest.mark.parametrize("message", FORBIDDEN)
def test_what_no_kernel_can_contain(message: str) -> None:
    with pytest.raises(InputError) as caught:
        Writer().function(FORBIDDEN[message])
    assert message in str(caught.value)


class Broken(LennardJones):
    """A kernel that cannot be written."""

    def kernel(self, species: tuple[int, ...]) -> PotentialKernel:
        return pair_kernel(takes_list, (1.0,))  # type: ignore[arg-type]


class Silent(LennardJones):
    """Does not tell the energies of atoms, as its kernel does."""

    def evaluate(self, systems: Systems, *, stress: bool = False) -> Evaluation:
        found = super().evaluate(systems, stress=stress)
        return Evaluation(found.energy, found.force)

    def kernel(self, species: tuple[int, ...]) -> PotentialKernel:
        return super().kernel(species)


class Doubled(LennardJones):
    """Another energy, the same kernel."""

    def evaluate(self, systems: Systems, *, stress: bool = False) -> Evaluation:
        found = super().evaluate(systems, stress=stress)
        return Evaluation(2.0 * found.energy, 2.0 * found.force, 2.0 * found.row_energy)  # type: ignore[operator]


class Slower(Adam):
    """Another step, the same kernel."""

    def step(self, *arguments: Any) -> Any:
        return super().step(*arguments)


class Plain(Potential):
    """No kernel."""

    def energy(self, systems: Systems) -> torch.Tensor:
        return systems.segments.sum(systems.pos**2)


class Same(Optimizer):
    """No kernel."""

    def init(self, *arguments: Any) -> Any: ...

    def step(self, *arguments: Any) -> Any: ...


class Still(Move):
    """No kernel."""

    def propose(self, landscape: Landscape, x: torch.Tensor, *arguments: Any) -> torch.Tensor:
        return x


class Shifted(AtomsLandscape):
    """Not the potential alone."""


def free(potential: Potential | None = None, dtype: torch.dtype = torch.float64) -> AtomsLandscape:
    return AtomsLandscape(Systems.cluster([18] * 3, 2, dtype), potential or LennardJones())


def periodic() -> AtomsLandscape:
    systems = Systems.cluster([18] * 3)
    cell, pbc = 20.0 * torch.eye(3, dtype=torch.float64)[None], torch.ones(1, 3, dtype=torch.bool)
    return AtomsLandscape(Systems(systems.pos, systems.z, systems.ptr, cell, pbc), LennardJones())


def function() -> FunctionLandscape:
    return FunctionLandscape(lambda x, segments: segments.sum(x * x), Segments.uniform(2, 3))


REFUSED: dict[str, Callable[[], tuple[Landscape, Optimizer]]] = {
    "the optimizer Same offers no kernel": lambda: (free(), Same()),
    "the optimizer RandomRestarts offers no kernel": lambda: (free(), RandomRestarts()),
    "the optimizer Same offers no kernel.": lambda: (free(), BasinHopping(quench=Same())),
    "the move Still offers no kernel": lambda: (free(), BasinHopping(moves=[Still()])),
    "the potential Plain offers no kernel": lambda: (free(Plain()), LBFGS()),
    "has a kernel for free clusters only, and a system is periodic": lambda: (periodic(), LBFGS()),
    "FunctionLandscape is not a landscape of atoms": lambda: (function(), LBFGS()),
    "Shifted is not a landscape of atoms alone": lambda: (Shifted(free().systems, LennardJones()), LBFGS()),
    "there are no kernels for torch.float16": lambda: (free(dtype=torch.float16), LBFGS()),
    "`LIST` is neither a number nor a plain function": lambda: (free(Broken()), LBFGS()),
    "Doubled has its own `evaluate`, and the `kernel` of another class": lambda: (free(Doubled()), LBFGS()),
    "Slower has its own `step`": lambda: (free(), Slower()),
    "Slower has its own `step`, and": lambda: (free(), BasinHopping(quench=Slower())),
    "Silent gives no `row_energy`, which its kernel does": lambda: (free(Silent()), BasinHopping()),
}


@pytest.mark.parametrize("message", REFUSED)
def test_refusals_say_what_is_at_fault_and_auto_is_eager(message: str) -> None:
    landscape, optimizer = REFUSED[message]()
    check_refused(landscape, optimizer, message)


def check_refused(landscape: Landscape, optimizer: Optimizer, message: str) -> None:
    with pytest.raises(
        InputError, match=r"`engine: fused` cannot run this: .*takes the eager engine"
    ) as caught:
        Driver(landscape, optimizer, Stop(10), engine="fused")
    assert message in str(caught.value)
    assert Driver(landscape, optimizer, Stop(10**9), engine="auto").engine is None


def test_numba_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    check_refused(free(), LBFGS(), "`pip install numba`")


def test_other_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    landscape = free()
    monkeypatch.setattr(landscape, "systems", SimpleNamespace(pos=torch.empty(0, device="meta")))
    check_refused(landscape, LBFGS(), "there are no kernels for the device meta")


def test_auto_looks_at_the_work_alone() -> None:
    chosen = {n: Driver(free(), LBFGS(), Stop(n), engine="auto").engine for n in (100, 1_000_000)}
    assert chosen[100] is None and type(chosen[1_000_000]).__name__ == "FusedEngine"
    assert Driver(free(), LBFGS(), Stop(1_000_000), engine="eager").engine is None


def test_an_energy_without_rows_is_enough_for_a_local_optimizer() -> None:
    assert Driver(free(Silent()), LBFGS(), Stop(10), engine="fused").engine is not None

"""Kernel functions of potentials: what they compute is what the eager potential does."""

from __future__ import annotations

import importlib
import pkgutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import ase
import numpy as np
import pytest
import torch
from ase.build import bulk

import mlopt.potentials.kernels
from mlopt.core.atoms.systems import Systems
from mlopt.core.batch.random import problem_keys
from mlopt.core.driver.driver import Driver
from mlopt.core.driver.stop import Stop
from mlopt.core.kernels.kernel import PotentialKernel
from mlopt.core.landscapes.landscape import AtomsLandscape
from mlopt.core.landscapes.potential import Potential
from mlopt.optimizers import GradientDescent
from mlopt.optimizers.fused.pack import atoms_of, buckets_of
from mlopt.potentials import Gupta, LennardJones, Morse, StillingerWeber

_ROUNDING = {torch.float64: 1e-12, torch.float32: 3e-5}
_MODULES = [
    importlib.import_module(f"mlopt.potentials.kernels.{found.name}")
    for found in pkgutil.iter_modules(mlopt.potentials.kernels.__path__)
]


def _systems(atoms: list[ase.Atoms], rattle: float, dtype: torch.dtype = torch.float64) -> Systems:
    generator = np.random.default_rng(7)
    pos = [one.positions + rattle * generator.normal(size=one.positions.shape) for one in atoms]
    return Systems(
        torch.tensor(np.concatenate(pos), dtype=dtype),
        torch.tensor(np.concatenate([one.numbers for one in atoms])),
        torch.tensor(np.cumsum([0] + [len(one) for one in atoms])),
        torch.tensor(np.array([one.cell[:] for one in atoms]), dtype=dtype),
        torch.tensor(np.array([one.pbc for one in atoms])),
    )


def _crystals(symbol: str, structure: str, a: float) -> list[ase.Atoms]:
    """Eight atoms each: cubic and triclinic cells, small ones with many images, partly periodic ones, a cluster."""
    cube = bulk(symbol, structure, a=a, cubic=True)
    cells = [cube.repeat((8 // len(cube), 1, 1)), bulk(symbol, structure, a=a).repeat((2, 2, 2))[:8]]
    long = bulk(symbol, structure, a=a).repeat((4, 2, 1) if structure == "fcc" else (4, 1, 1))
    cells += [long, cells[0].copy(), cells[1].copy(), cells[0].copy()]
    cells[3].pbc, cells[4].pbc, cells[5].pbc = (1, 0, 1), (0, 0, 1), False
    cells[4].cell[0] = 0.0
    for one in cells:
        one.positions += np.arange(len(one))[:, None] % 3 * one.cell[2] * one.pbc[2]  # nothing wraps atoms
    return cells


@dataclass
class _Scratch:
    """What lasts between the evaluations of a rollout."""

    reals: np.ndarray
    integers: np.ndarray

    @classmethod
    def of(cls, kernel: PotentialKernel, n: int, dtype: Any) -> _Scratch:
        spoiled = np.full(kernel.reals(n), np.nan, dtype)
        integers = np.full(1 + kernel.integers(n), 7, np.int64)
        integers[0] = 0
        return cls(spoiled, integers)


@contextmanager
def _in_python(kernel: PotentialKernel, **others: Any) -> Iterator[None]:
    """The kernel's constants and parts where its functions look for them."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**kernel.constants, **kernel.parts, **others}.items():
            for module in _MODULES:
                if hasattr(module, name):
                    patch.setattr(module, name, value)
        yield


def _evaluate(
    potential: Potential,
    systems: Systems,
    kernel: PotentialKernel | None = None,
    scratch: _Scratch | None = None,
    **others: Any,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Energy, force and row energies of systems by kernel functions as they stand."""
    species = tuple(torch.unique(systems.z).tolist())
    kernel = potential.kernel(species) if kernel is None else kernel
    energy = torch.zeros(len(systems), dtype=systems.pos.dtype)
    force, row_energy = torch.zeros_like(systems.pos), torch.zeros_like(systems.pos[:, 0])
    landscape = AtomsLandscape(systems, potential)
    spread = others.pop("spread", lambda function: function)
    function = spread(kernel.function)
    with _in_python(kernel, **others), np.errstate(all="ignore"):
        for bucket in buckets_of(systems.segments):
            atoms, n = atoms_of(landscape, bucket, kernel.species, systems.pos), bucket.n
            x = bucket.rows_in(systems.pos).reshape(len(bucket.problems), -1).numpy()
            table = torch.tensor(kernel.table, dtype=systems.pos.dtype).flatten(0, 1).numpy()
            for s, problem in enumerate(bucket.problems.tolist()):
                own = scratch or _Scratch.of(kernel, n, x.dtype)
                found = np.zeros(3 * n, x.dtype), np.zeros(n, x.dtype)
                each = atoms.kinds[s].numpy(), atoms.runs[s].numpy(), table, atoms.cell[s].numpy()
                energy[problem] = float(function(n, x[s], *found, *each, own.reals, own.integers, ()))
                rows = bucket.rows[s * n : (s + 1) * n]
                force[rows] = torch.from_numpy(found[0]).view(3, n).T
                row_energy[rows] = torch.from_numpy(found[1])
    return energy, force, row_energy


def _agrees(potential: Potential, systems: Systems, found: tuple[torch.Tensor, ...]) -> None:
    expected = potential.evaluate(systems)
    tolerance = _ROUNDING[systems.pos.dtype]
    assert expected.row_energy is not None
    pairs = zip((expected.energy, expected.force, expected.row_energy), found, strict=True)
    for eager, kernel in pairs:
        assert eager.isfinite().all()
        torch.testing.assert_close(kernel, eager, rtol=0.0, atol=tolerance * (1.0 + float(eager.abs().max())))


_CUT = [
    (LennardJones(cutoff=2.5, shift="none"), "fcc", "Ar", 1.5),
    (LennardJones(cutoff=2.5, shift="energy", sigma=0.9), "fcc", "Ar", 1.5),
    (LennardJones(cutoff=2.1, shift="force", epsilon=2.0, r0=1.1), "fcc", "Ar", 1.5),
    (Morse(cutoff=2.2, shift="force", r0=1.1), "fcc", "Ar", 1.5),
    (StillingerWeber(), "diamond", "Si", 5.431),
    (StillingerWeber(preset="paper", p=3.5, q=0.5, three_body=30.0), "diamond", "Si", 5.0),
    (Gupta(cutoff=5.5), "fcc", "Au", 4.08),
    (Gupta(cutoff=5.0, taper=0.0), "fcc", "Au", 4.08),
]


@pytest.mark.parametrize(("potential", "structure", "symbol", "a"), _CUT)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_cut_in_cells_of_every_kind(
    potential: Potential, structure: str, symbol: str, a: float, dtype: torch.dtype
) -> None:
    systems = _systems(_crystals(symbol, structure, a), 0.03 * a, dtype)
    for limit in (0, 10):
        _agrees(potential, systems, _evaluate(potential, systems, LISTED_FROM=limit))


def _alloy(periodic: bool) -> list[ase.Atoms]:
    cells = [one for one in _crystals("Au", "fcc", 4.08) if one.pbc.any() == periodic]
    for k, one in enumerate(cells):
        one.numbers[k % 2 :: 2] = 47
    return cells


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("periodic", [True, False])
def test_alloys_with_species_in_any_order(periodic: bool, dtype: torch.dtype) -> None:
    potential = Gupta(preset="AgAu", cutoff=5.5 if periodic else None)
    systems = _systems(_alloy(periodic), 0.1, dtype)
    _agrees(potential, systems, _evaluate(potential, systems))
    _agrees(potential, systems, _evaluate(potential, systems, KEPT_UP_TO=0))


@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 13])
def test_gupta_of_small_clusters(n: int) -> None:
    gold = bulk("Au", "fcc", a=4.08, cubic=True).repeat((2, 2, 1))[:n]
    gold.pbc = False
    systems = _systems([gold], 0.1)
    for limit in (0, 400):
        _agrees(Gupta(), systems, _evaluate(Gupta(), systems, KEPT_UP_TO=limit))


def test_atoms_without_neighbours_have_no_energy() -> None:
    far = ase.Atoms("Au2", [[0, 0, 0], [900, 0, 0]])
    for potential in (Gupta(), Gupta(cutoff=5.0), LennardJones(cutoff=2.5)):
        for found in _evaluate(potential, _systems([far], 0.0)):
            assert bool((found.abs() < 1e-12).all())


_AGED = [
    (LennardJones(cutoff=1.6), "fcc", "Ar", 1.5),
    (StillingerWeber(), "diamond", "Si", 5.431),
    (Gupta(cutoff=4.0), "fcc", "Au", 4.08),
]


@pytest.mark.parametrize(("potential", "structure", "symbol", "a"), _AGED)
def test_bits_do_not_depend_on_the_age_of_the_list(
    potential: Potential, structure: str, symbol: str, a: float
) -> None:
    crystal = _crystals(symbol, structure, a)[1]
    systems = _systems([crystal], 0.03 * a)
    kernel = potential.kernel((int(systems.z[0]),))
    scratch = _Scratch.of(kernel, len(crystal), np.float64)
    generator, rebuilt = np.random.default_rng(1), 0
    for _ in range(12):
        old = scratch.reals[18 : 18 + 3 * len(crystal)].copy()
        aged = _evaluate(potential, systems, kernel, scratch)
        rebuilt += not np.array_equal(old, scratch.reals[18 : 18 + 3 * len(crystal)])
        fresh = _evaluate(potential, systems, kernel)
        assert all(torch.equal(one, other) for one, other in zip(aged, fresh, strict=True))
        move = torch.from_numpy(generator.normal(size=(len(crystal), 3))) * 0.02 * a
        systems = systems.with_pos(systems.pos + move)
    assert 1 < rebuilt < 12


@pytest.mark.parametrize(("potential", "structure", "symbol", "a"), [_CUT[1], _CUT[4], _CUT[6]])
def test_lists_and_buffers_that_overflow(potential: Potential, structure: str, symbol: str, a: float) -> None:
    systems = _systems(_crystals(symbol, structure, 0.8 * a)[:4], 0.03 * a)
    kernel = potential.kernel((int(systems.z[0]),))
    small_list = replace(kernel, constants={**kernel.constants, "LIST": 5})
    small_room = replace(kernel, constants={**kernel.constants, "ROOM": 32, "LIST": 40, "MOST": 32})
    for found, other in zip(
        _evaluate(potential, systems, kernel, LISTED_FROM=0),
        _evaluate(potential, systems, small_list, LISTED_FROM=0),
        strict=True,
    ):
        assert torch.equal(found, other)
    _agrees(potential, systems, _evaluate(potential, systems, small_room, LISTED_FROM=0))
    one_row = replace(kernel, constants={**kernel.constants, "ROOM": 32}), systems.select(torch.tensor([2]))
    _agrees(potential, one_row[1], _teams(3, lambda **k: _evaluate(potential, one_row[1], one_row[0], **k)))


def _teams(number: int, work: Callable[..., tuple[torch.Tensor, ...]]) -> tuple[torch.Tensor, ...]:
    """The work of as many lanes, each a thread that runs to the same barriers."""
    barrier, local, values = threading.Barrier(number), threading.local(), [0.0] * number

    def sync() -> None:
        if hasattr(local, "lane"):
            barrier.wait(30.0)

    def total(value: float) -> float:
        values[local.lane] = value
        sync()
        found = sum(values)
        sync()
        return found

    def spread(function: Callable[..., float]) -> Callable[..., float]:
        def run(*arguments: Any) -> float:
            found, failed = [0.0] * number, list[BaseException]()

            def one(lane: int) -> None:
                local.lane = lane
                try:
                    found[lane] = function(*arguments)
                except BaseException as error:
                    failed.append(error)
                    barrier.abort()

            threads = [threading.Thread(target=one, args=(lane,)) for lane in range(number)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            if failed:
                raise failed[0]
            assert found == [found[0]] * number or np.isnan(found).all()
            return found[0]

        return run

    names = {"lane": lambda: local.lane, "lanes": lambda: number, "sync": sync, "total": total}
    return work(spread=spread, **names)


@pytest.mark.parametrize(
    ("potential", "structure", "symbol", "a"),
    [*_CUT[1:2], _CUT[4], _CUT[6], (Gupta(), "fcc", "Au", 4.08), (LennardJones(), "fcc", "Ar", 1.5)],
)
def test_many_lanes_on_a_system(potential: Potential, structure: str, symbol: str, a: float) -> None:
    crystals = _crystals(symbol, structure, a)
    free = type(potential).model_fields.keys() >= {"cutoff"} and getattr(potential, "cutoff", None) is None
    systems = _systems([one for one in crystals if not (free and one.pbc.any())], 0.03 * a)
    _agrees(potential, systems, _teams(3, lambda **k: _evaluate(potential, systems, **k)))


# what is compiled: one combination for each family


def _advance(
    potential: Potential, systems: Systems, engine: str, pauses: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.arange(len(systems))
    optimizer = GradientDescent(step_size=1e-3, max_step=0.05)
    driver = Driver(AtomsLandscape(systems, potential), optimizer, Stop(60), 10, engine)
    progress = driver.begin(systems.pos.clone(), problem_keys(0, ids))
    while progress.active.numel():
        progress = driver.advance(progress, (lambda: True) if pauses else None)
    result = driver.result(progress)
    return result.energy, result.x


@pytest.mark.parametrize(
    ("potential", "structure", "symbol", "a"),
    [
        _CUT[1],
        pytest.param(*_CUT[4], marks=pytest.mark.slow),
        pytest.param(Gupta(preset="au55-paper"), "fcc", "Au", 4.08, marks=pytest.mark.slow),
    ],
)
def test_fused_rollouts(potential: Potential, structure: str, symbol: str, a: float) -> None:
    crystals = _crystals(symbol, structure, a)
    if isinstance(potential, Gupta):
        crystals = [one for one in crystals if not one.pbc.any()] * 3
    lost = _systems(crystals, 0.03 * a)
    pos = lost.pos.clone()
    pos[0] = float("nan")
    pos[len(crystals[0])] = pos[len(crystals[0]) + 1]  # two atoms on one spot
    eager, fused = (
        _advance(potential, lost.with_pos(pos), "eager"),
        _advance(potential, lost.with_pos(pos), "fused"),
    )
    sound = torch.arange(len(crystals)) >= 2
    rows = sound[lost.batch]
    assert torch.equal(fused[0].isfinite(), eager[0].isfinite())
    assert not fused[0][0].isfinite()
    torch.testing.assert_close(fused[0][sound], eager[0][sound], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(fused[1][rows], eager[1][rows], rtol=1e-9, atol=1e-9)
    again = _advance(potential, lost.with_pos(pos), "fused", pauses=True)
    assert torch.equal(again[0][sound], fused[0][sound])
    assert torch.equal(again[1][rows], fused[1][rows])

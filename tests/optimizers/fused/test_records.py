"""Records in kernels: plain arguments in what is compiled, objects in Python, and what cannot be done with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mlopt.core.atoms.systems import Systems
from mlopt.core.errors import InputError
from mlopt.core.kernels.kernel import Kernel
from mlopt.core.kernels.records import (
    Atoms,
    Memory,
    Proposal,
    Start,
    Step,
    boltzmann_of,
    cell_of,
    diameter_of,
    inertia_of,
    is_free,
    is_movable,
    is_periodic,
    species_of,
)
from mlopt.core.landscapes.landscape import AtomsLandscape
from mlopt.core.lazy import torch
from mlopt.optimizers.fused.arguments import fields_of
from mlopt.optimizers.fused.pack import atoms_of, buckets_of
from mlopt.optimizers.fused.writer import Writer
from mlopt.optimizers.local.kernels import adam
from mlopt.potentials import LennardJones

FIRST = 2


def remember(s: Memory, value: float) -> None:
    s.rows[0] = value


def moves(s: Proposal, settings: Any) -> None:
    """Stands for several."""


def push(move: Proposal, settings: Any) -> None:
    move.x[0] += settings[0] * diameter_of(move, 0)


def whole(s: Step, settings: Any) -> None:
    remember(s, s.energy)
    inner = replace(s, rows=s.rows[FIRST * s.n :])
    remember(inner, 2.0 * inner.energy)
    remember(replace(inner, rows=inner.rows[1:]), 3.0 * s.energy)
    moves(
        Proposal(
            n=s.n,
            x=s.x,
            row_energy=s.row_energy,
            scale=1.0,
            atoms=s.atoms,
            rows=s.rows,
            counts=s.counts,
            scratch=s.scratch,
        ),
        settings,
    )


def a_step() -> Step:
    space = np.zeros(12)
    return Step(n=2, rows=space, numbers=np.zeros(2), counts=np.zeros(2, dtype=int), x=np.zeros(6), energy=5.0,
                force=np.ones(6), row_energy=np.zeros(2), atoms=np.full(20, 3.0), scratch=np.zeros(20))  # fmt: skip


def test_what_is_written_does_what_python_does() -> None:
    """The text is run as it stands, with arrays in the place of records."""
    writer = Writer()
    name = writer.kernel(
        Kernel(whole, (7.0,), parts={"moves": [Kernel(push, (0.5,)), Kernel(push, (0.25,))]})
    )
    assert "s." not in writer.text and "move." not in writer.text
    space: dict[str, Any] = {
        "jit": lambda one: one, "view": lambda one: one, "real": float, "unsigned": int, "inf": np.inf,
    }  # fmt: skip
    exec(writer.text, space)  # noqa: S102
    written, plain = a_step(), a_step()
    space[name](*(getattr(written, field) for field in fields_of(Step) or ()), ([7.0, 0.5, 0.25], None))
    whole(plain, [7.0])  # in Python parts do nothing
    assert plain.rows.tolist() == written.rows.tolist() == [5.0, 0, 0, 0, 10.0, 15.0, *[0] * 6]
    assert written.x[0] == (0.5 + 0.25) * 3.0 and plain.x[0] == 0.0


def test_the_fields_of_records() -> None:
    assert fields_of(Memory) == ("n", "rows", "numbers", "counts")
    assert fields_of(Start) == (*fields_of(Memory), "x")  # type: ignore[misc]
    assert fields_of(Atoms) == ("n", "atoms")
    assert fields_of(Any) is fields_of(float) is fields_of(Systems.cluster) is None


def test_a_kernel_runs_in_python() -> None:
    s = a_step()
    adam.init(s, [])
    adam.step(s, [0.01, 0.9, 0.999, 1e-8])
    assert np.allclose(s.x, 0.01)


def test_what_is_asked_about_atoms() -> None:
    ptr, fixed = torch.tensor([0, 2, 5]), torch.tensor([False, True, True, False, False])
    cell = torch.zeros(2, 3, 3, dtype=torch.float64)
    cell[1] = 4.0 * torch.eye(3)
    pbc = torch.tensor([[False, False, False], [True, False, True]])
    z = torch.tensor([18, 36, 18, 36, 54])
    systems = Systems(torch.zeros(5, 3, dtype=torch.float64), z, ptr, cell=cell, pbc=pbc, fixed=fixed)
    masses = torch.tensor([torch.nan, torch.nan, torch.nan, 80.0, torch.nan], dtype=torch.float64)
    systems = replace(systems, given_masses=masses)
    landscape = AtomsLandscape(systems, LennardJones(r0=1.5))
    found = []
    for bucket in buckets_of(landscape.segments):
        for atoms in atoms_of(landscape, bucket, (), systems.pos).atoms.numpy():
            s = SimpleNamespace(n=bucket.n, atoms=atoms)
            each = range(bucket.n)
            assert all(diameter_of(s, i) == 1.5 for i in each)
            assert [float(inertia_of(s, i)) for i in each] == (
                [1.0] * 2 if bucket.n == 2 else [1.0, 80.0, 1.0]
            )
            assert float(boltzmann_of(s)) == 1.0
            found.append([[int(ask(s, i)) for i in each] for ask in (species_of, is_free, is_movable)])
            found[-1].append([int(is_periodic(s, axis)) for axis in range(3)])
            assert cell_of(s)[:9].tolist() == ([0.0] * 9 if bucket.n == 2 else cell[1].flatten().tolist())
    assert found == [
        [[18, 36], [1, 0], [1, 0], [0, 0, 0]],
        [[18, 36, 54], [0, 1, 1], [0, 0, 0], [1, 0, 1]],
    ]


def unknown_field(s: Step) -> Any:
    return s.mass


def set_field(s: Step) -> None:
    s.energy = 2.0


def handed_to_anybody(s: Step) -> Any:
    return anybody(s)


def anybody(x: Any) -> Any:
    return x[0]


def no_record(x: Any) -> None:
    remember(x, 1.0)


def too_little(s: Atoms) -> None:
    remember(s, 1.0)


def read_whole(s: Step) -> Any:
    return s


def made_of_some(s: Step) -> None:
    other = Memory(n=s.n, rows=s.rows)  # type: ignore[call-arg]
    remember(other, 1.0)


def replaces_nothing(x: Any) -> None:
    other = replace(x, rows=x)
    remember(other, 1.0)


def renamed(s: Step) -> None:
    inner = replace(s, rows=s.rows[1:])
    inner = replace(inner, rows=s.rows[2:])
    remember(inner, 1.0)


def shadowed(s: Memory) -> Any:
    s_rows = 1.0
    return s_rows + s.rows[0]


FORBIDDEN: dict[str, Callable[..., Any]] = {
    "`s.mass`: of this record can be read, and not set: n, rows, numbers, counts, x, energy": unknown_field,
    "`s.energy`: of this record can be read, and not set: n": set_field,
    "`anybody(s)`: anybody asks for no record; annotate its parameter, as in `s: Step`": handed_to_anybody,
    "`remember(x, 1.0)`: remember asks for a record of n, rows, numbers, counts": no_record,
    "`remember(s, 1.0)`: remember asks for `rows`, and the record that it is given has n, atoms": too_little,
    "`s` is a record: read its fields, or hand it to a function": read_whole,
    "name all fields of the record: n, rows, numbers, counts": made_of_some,
    "write `replace(record, field=...)`": replaces_nothing,
    "give a record a name of its own": renamed,
    "`s_rows` stands for a field of a record: give the variable another name": shadowed,
}


@pytest.mark.parametrize("message", FORBIDDEN)
def test_what_cannot_be_done_with_records(message: str) -> None:
    with pytest.raises(InputError) as caught:
        Writer().function(FORBIDDEN[message])
    assert message in str(caught.value) and FORBIDDEN[message].__qualname__ in str(caught.value)

"""The batch of configurations."""

from __future__ import annotations

import pytest
import torch

from mlopt.core.atoms.systems import Systems
from mlopt.core.errors import InputError


def three() -> Systems:
    """Systems of 2, 0 and 3 atoms; the last is periodic."""
    pos = torch.arange(15, dtype=torch.float64).reshape(5, 3)
    cell = torch.zeros(3, 3, 3, dtype=torch.float64)
    cell[2] = 4.0 * torch.eye(3)
    pbc = torch.tensor([[False] * 3, [False] * 3, [True, True, False]])
    fixed = torch.tensor([False, True, False, False, True])
    return Systems(pos, torch.tensor([1, 2, 3, 4, 5]), torch.tensor([0, 2, 2, 5]), cell, pbc, fixed)


def test_defaults_and_counts() -> None:
    systems = Systems.cluster([18] * 3, 2)
    assert len(systems) == systems.n_systems == 2
    assert systems.batch.tolist() == [0, 0, 0, 1, 1, 1]
    assert not systems.periodic and not systems.fixed.any() and systems.volume.tolist() == [0.0, 0.0]
    assert three().periodic and three().volume.tolist() == [0.0, 0.0, 64.0]


@pytest.mark.parametrize("field, shape", [("pos", (5, 3)), ("z", (5,)), ("cell", (3, 3, 3)), ("pbc", (3, 3))])
def test_shapes_are_checked(field: str, shape: tuple[int, ...]) -> None:
    one = three()
    values = {name: getattr(one, name) for name in ("pos", "z", "ptr", "cell", "pbc", "fixed")}
    values[field] = values[field][:-1]
    with pytest.raises(InputError, match=rf"`{field}` must have shape \({shape[0]}.* to fit `ptr`"):
        Systems(**values)


def test_select_and_concatenate() -> None:
    systems = three()
    swapped = systems.select([2, 0])
    assert swapped.z.tolist() == [3, 4, 5, 1, 2] and swapped.ptr.tolist() == [0, 3, 5]
    assert swapped.fixed.tolist() == [False, False, True, False, True]
    assert swapped.pbc.tolist() == [[True, True, False], [False] * 3]
    assert systems[-1].z.tolist() == [3, 4, 5] and len(systems[1].pos) == 0
    with pytest.raises(IndexError, match="system 3 of a batch of 3"):
        systems[3]
    joined = Systems.concatenate([systems[0], systems[1], systems[2]])
    for name in ("pos", "z", "ptr", "cell", "pbc", "fixed"):
        assert torch.equal(getattr(joined, name), getattr(systems, name)), name
    assert systems.repeat(2).ptr.tolist() == [0, 2, 2, 5, 7, 7, 10]
    with pytest.raises(InputError, match="at least one batch"):
        Systems.concatenate([])


def test_with_pos_keeps_the_rest() -> None:
    systems = three()
    assert systems.periodic  # is kept, too
    moved = systems.with_pos(systems.pos + 1.0)
    assert moved.segments is systems.segments and moved.cell is systems.cell and moved.periodic
    assert float(systems.pos[0, 0]) == 0.0 and float(moved.pos[0, 0]) == 1.0


def test_dtype() -> None:
    single = three().to(dtype=torch.float32)
    assert single.pos.dtype == single.cell.dtype == torch.float32
    assert single.z.dtype == single.ptr.dtype == torch.int64 and single.fixed.dtype == torch.bool

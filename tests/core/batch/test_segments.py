"""Segments: every reduction against a plain loop, and the same bits in every batch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mlopt.core.batch.segments import Segments
from mlopt.core.errors import InputError

SIZES = st.lists(st.integers(0, 9), min_size=1, max_size=8)
UNIFORM = st.tuples(st.integers(1, 9), st.integers(1, 8)).map(lambda both: [both[0]] * both[1])


def made(sizes: list[int], width: int = 3) -> tuple[Segments, torch.Tensor]:
    segments = Segments(torch.tensor([0, *sizes]).cumsum(0))
    generator = torch.Generator().manual_seed(len(sizes))
    return segments, torch.randn(segments.n_rows, width, dtype=torch.float64, generator=generator)


@given(st.one_of(SIZES, UNIFORM))
def test_reductions_are_those_of_a_loop(sizes: list[int]) -> None:
    segments, values = made(sizes)
    parts = torch.split(values, sizes)
    assert torch.allclose(segments.sum(values), torch.stack([part.sum() for part in parts]))
    assert torch.allclose(segments.dot(values, values), torch.stack([(part * part).sum() for part in parts]))
    highest = [part.max() if len(part) else torch.zeros((), dtype=torch.float64) for part in parts]
    assert torch.equal(segments.max(values), torch.stack(highest))
    longest = [(part * part).sum(1).max() if len(part) else torch.zeros(()).double() for part in parts]
    assert torch.allclose(segments.longest2(values), torch.stack(longest))
    stacked = segments.sum_stack(torch.stack([values, 2 * values]))
    assert torch.equal(stacked, torch.stack([segments.sum(values), segments.sum(2 * values)], 1))
    means = [part.sum(0) / max(len(part), 1) for part in parts]
    assert torch.allclose(segments.mean_rows(values), torch.stack(means))
    factor = torch.arange(len(sizes), dtype=torch.float64)
    assert torch.equal(segments.rows_of(factor), factor[segments.batch])
    assert torch.equal(segments.scale(factor, values), values * factor[segments.batch][:, None])
    if all(sizes):
        rows = [
            int(part[:, 0].argmax()) + int(start) for part, start in zip(parts, segments.ptr, strict=False)
        ]
        assert segments.argmax(values[:, 0]).tolist() == rows


@given(st.one_of(SIZES, UNIFORM), st.randoms(use_true_random=False))
def test_a_selection_owns_its_rows(sizes: list[int], random: object) -> None:
    segments, values = made(sizes)
    problems = torch.tensor([len(sizes) - 1, 0, len(sizes) // 2])
    part, rows = segments.select(problems)
    expected = [torch.split(values, sizes)[i] for i in problems.tolist()]
    assert torch.equal(values[rows], torch.cat(expected))
    assert part.counts.tolist() == [len(one) for one in expected]
    assert torch.equal(part.sum(values[rows]), segments.sum(values)[problems])
    empty, none = segments.select(problems[:0])
    assert empty.n_problems == 0 and none.numel() == 0


@pytest.mark.parametrize("size", [1, 2, 5, 13, 38, 75, 400])
def test_bits_do_not_depend_on_the_batch(size: int) -> None:
    uniform, values = made([size] * 150)
    mixed = Segments(torch.tensor([0, *[size] * 150, 3, 1]).cumsum(0))
    more = torch.cat([values, values[:1].repeat(4, 1)])
    strided = torch.cat([values, values], 1)[:, :3]  # the same numbers, not contiguous
    turned = values.T.contiguous().T
    alone = Segments.uniform(1, size)
    for name in ("sum", "max", "longest2", "mean_rows"):
        whole = getattr(uniform, name)(values)
        assert torch.equal(getattr(mixed, name)(more)[:150], whole), name
        assert torch.equal(getattr(uniform, name)(strided), whole), name
        assert torch.equal(getattr(uniform, name)(turned), whole), name
        for i in (0, 1, 77, 149):
            one = getattr(alone, name)(values[i * size : (i + 1) * size])
            assert torch.equal(one[0], whole[i]), (name, i)


def test_spread_makes_one_number_and_one_a_problem_alike() -> None:
    segments, values = made([2, 3])
    assert segments.spread(0.5) == 0.5
    scalar = torch.tensor(0.5)
    assert segments.spread(scalar) is scalar
    one, three = torch.tensor([1.0, 2.0]), torch.rand(2, 3)
    assert (values * segments.spread(one)).shape == values.shape
    assert torch.equal(torch.as_tensor(segments.spread(three)), three[segments.batch])


def test_gradients_pass() -> None:
    for sizes in ([2, 3, 2], [2, 2]):
        segments, values = made(sizes)
        values.requires_grad_(True)
        factor = torch.rand(len(sizes), dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda v, f, s=segments: s.sum(s.scale(f, v * v)), (values, factor))
        assert torch.autograd.gradcheck(segments.longest2, (values,))


@pytest.mark.parametrize("ptr", [[1, 2], [0, 3, 2], []])
def test_bad_pointers_are_refused(ptr: list[int]) -> None:
    with pytest.raises(InputError, match="`ptr` must be a non-decreasing 1-D tensor that starts at 0"):
        Segments(torch.tensor(ptr, dtype=torch.int64))


def test_no_problems_at_all():
    """A batch from which nothing was chosen, however it was made."""
    for nothing in (
        Segments(torch.tensor([0])),
        Segments.uniform(0, 5),
        Segments.uniform(3, 5).select(torch.tensor([]).long())[0],
    ):
        values = torch.zeros(0, 3)
        assert (
            nothing.sum(values).shape
            == nothing.max(values).shape
            == nothing.dot(values, values).shape
            == (0,)
        )
        assert nothing.mean_rows(values).shape == (0, 3)
        assert nothing.rows_of(torch.zeros(0, 2)).shape == (0, 2)


@given(SIZES, st.integers(0, 12))
def test_blocks_are_whole_problems_in_order_and_as_large_as_allowed(sizes: list[int], most: int) -> None:
    found = made(sizes)[0].blocks(most)
    assert [one for first, stop in found for one in range(first, stop)] == list(range(len(sizes)))
    for first, stop in found:
        assert sum(sizes[first:stop]) <= most or stop == first + 1
        if stop < len(sizes):
            assert sum(sizes[first : stop + 1]) > most
    assert Segments(torch.tensor([0])).blocks(most) == []

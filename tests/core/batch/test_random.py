"""Random numbers: the published generator, the right distributions, and nothing that depends on the batch."""

from __future__ import annotations

import pytest
import torch

from mlopt.core.batch.random import Draws, bits, derive, normal, problem_keys, uniform
from mlopt.core.batch.segments import Segments


def test_bits_are_those_of_splitmix64() -> None:
    # the first outputs of SplitMix64 from seed 0, as in the test vectors of several languages' libraries
    zero = torch.zeros(1, dtype=torch.int64)
    expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert [value % 2**64 for value in bits(zero, zero, 3)[0].tolist()] == expected
    assert [value % 2**64 for value in bits(zero, zero + 2, 1)[0].tolist()] == expected[2:]


def test_uniform_and_normal_have_their_moments() -> None:
    key, counter = problem_keys(1, torch.arange(200)), torch.zeros(200, dtype=torch.int64)
    flat = uniform(key, counter, 5000)
    assert flat.dtype == torch.float64 and float(flat.min()) >= 0.0 and float(flat.max()) < 1.0
    assert float(flat.mean()) == pytest.approx(0.5, abs=1e-3)
    assert float(flat.var()) == pytest.approx(1 / 12, abs=1e-3)
    bell = normal(key, counter, 5000)
    for power, expected in ((1, 0.0), (2, 1.0), (3, 0.0), (4, 3.0)):
        assert float((bell**power).mean()) == pytest.approx(expected, abs=0.02)
    # neighbouring problems and neighbouring draws have nothing to do with each other
    assert abs(float((flat[1:] - 0.5).mul(flat[:-1] - 0.5).mean())) < 1e-3
    assert abs(float((flat[:, 1:] - 0.5).mul(flat[:, :-1] - 0.5).mean())) < 1e-3


def test_a_draw_depends_on_key_and_counter_alone() -> None:
    key = problem_keys(3, torch.arange(150))
    counter = torch.arange(150) * 7
    for draw in (uniform, normal):
        whole = draw(key, counter, 39)
        for i in (0, 1, 77, 149):
            assert torch.equal(draw(key[i : i + 1], counter[i : i + 1], 39)[0], whole[i])
    assert torch.equal(uniform(key, counter, 10)[:, 4:], uniform(key, counter + 4, 6))


def test_keys_differ() -> None:
    # neighbouring seeds and starts, where an exchange of both or their equality must not matter
    keys = torch.cat([problem_keys(seed, torch.arange(1000)) for seed in range(20)])
    assert len(set(keys.tolist())) == 20_000
    assert derive(5) != derive(6) and derive(5, 1, 2) != derive(5, 2, 1) and derive(5) != derive(5, 0)
    assert torch.equal(derive(5, torch.arange(3))[1], derive(5, 1))


def test_draws_of_rows_are_the_same_in_every_batch() -> None:
    sizes = [3, 0, 5, 3, 1]
    mixed = Segments(torch.tensor([0, *sizes]).cumsum(0))
    key, counter = problem_keys(0, torch.arange(5)), torch.tensor([0, 4, 8, 2, 1])
    draws = Draws(key, counter, mixed)
    drawn = [draws.uniform(2), draws.rows(3), draws.normal_rows(3), draws.uniform(1)]
    for i, size in enumerate(sizes):
        rows = slice(int(mixed.ptr[i]), int(mixed.ptr[i + 1]))
        alone = Draws(key[i : i + 1], counter[i : i + 1], Segments.uniform(1, size))
        assert torch.equal(alone.uniform(2)[0], drawn[0][i])
        assert torch.equal(alone.rows(3), drawn[1][rows])
        assert torch.equal(alone.normal_rows(3), drawn[2][rows])
        assert torch.equal(alone.uniform(1)[0], drawn[3][i])
        assert alone.counter.tolist() == draws.counter[i : i + 1].tolist()

"""Counter-based random numbers, one stream per problem.

A number is a pure function of (key, counter). No generator is carried along, so a problem draws the same numbers in any
batch, on any device, and after a resume. The function is the finalizer of SplitMix64 applied to ``key + counter *
golden ratio``. As a sequence in the counter this is SplitMix64 itself, which passes BigCrush. Int64 arithmetic wraps,
as uint64 would. Source: Steele, Lea & Flood, OOPSLA 2014, doi 10.1145/2660193.2660195; the constants are those of
Stafford's mix 13.
"""

from __future__ import annotations

import math

from mlopt.core.batch.segments import Segments
from mlopt.core.lazy import torch

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as int64
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB
_SALT = -3335678366873096957  # 0xD1B54A32D192ED03


class Stream:
    """The table of streams: numbers that `derive` adds to a key, so that two uses of one key draw different numbers.

    Changing a number changes every result of a given seed. Two rows may share a number if they are added to keys of
    different kinds.
    """

    # added to the key of a problem, which its run draws from
    START = 1  # where the problem begins
    BEGINNING, SHAKEN = 4, 5  # structures that are labelled before the first walk, and displacements of these
    ROUND = 6  # a stretch of a walk between two fits
    # added to the key of a path that is trained on
    BEND = 1
    # added to the key of a search for a saddle: the ways to begin one
    KICK, PAIR, DOWNHILL = 1, 2, 3
    # added to the seed of a training
    NOISE = 101  # perturbations of theta
    LENGTH = 201  # how long the inner runs of an epoch are
    MEMBERS = 211  # which systems an epoch has
    EPOCH = 212  # the problems of an epoch
    HELD_OUT = 213  # problems that no epoch has
    REFERENCE = 214  # the runs that losses are measured by
    # counters of the key of a structure, beyond those that draw it
    LEFT_OUT = 1 << 40  # whether a fit is tested on it
    FOLD = 1 << 41  # the fold of a fit that it belongs to
    HELD_BACK = 1 << 42  # whether a training looks at it instead of learning from it


def _shift_right(value: torch.Tensor, bits: int) -> torch.Tensor:
    """Shift right logically; torch's own shift is arithmetic for int64."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _mix(value: torch.Tensor) -> torch.Tensor:
    value = (value ^ _shift_right(value, 30)) * _MIX_1
    value = (value ^ _shift_right(value, 27)) * _MIX_2
    return value ^ _shift_right(value, 31)


def derive(key: torch.Tensor | int, *ids: torch.Tensor | int) -> torch.Tensor:
    """Return a new key from a key (or a seed) and identities, such as the index of a start: int64, broadcast shape."""
    value = torch.as_tensor(key, dtype=torch.int64)
    value = _mix(value + _GOLDEN)
    for part in ids:
        part = torch.as_tensor(part, dtype=torch.int64, device=value.device)
        # without the salted mix, key and identity would be interchangeable, and equal ones would cancel
        value = _mix(_mix(value ^ _SALT) ^ _mix(part + _GOLDEN))
    return value


def problem_keys(seed: int, ids: torch.Tensor) -> torch.Tensor:
    """Return the key of each problem ``ids (n_problems,)`` under a run's seed: (n_problems,) int64."""
    return derive(torch.as_tensor(seed, dtype=torch.int64, device=ids.device), ids)


def bits(key: torch.Tensor, counter: torch.Tensor, size: int) -> torch.Tensor:
    """Return ``size`` int64 of 64 random bits for each key: (n, size). Use ``counter + size`` the next time.

    key, counter: (n,) int64.
    """
    steps = counter[:, None] + torch.arange(1, size + 1, device=key.device)
    return _mix(key[:, None] + steps * _GOLDEN)


def uniform(key: torch.Tensor, counter: torch.Tensor, size: int) -> torch.Tensor:
    """Return ``size`` float64 in [0, 1) for each key, with 53 random bits: (n, size)."""
    return _shift_right(bits(key, counter, size), 11).to(torch.float64) * 2.0**-53


def normal(key: torch.Tensor, counter: torch.Tensor, size: int) -> torch.Tensor:
    """Return ``size`` standard normal float64 for each key (Box & Muller): (n, size).

    It uses ``2 * size`` of the counter.
    """
    pairs = uniform(key, counter, 2 * size)
    radius = (-2.0 * torch.log1p(-pairs[:, :size])).sqrt()
    return radius * torch.cos(2.0 * math.pi * pairs[:, size:])


class Draws:
    """Successive random numbers for a batch of problems and their rows.

    key, counter: (n_problems,) int64. Read `counter` after drawing and keep it in the state.

    >>> draws = Draws(problem_keys(0, torch.arange(2)), torch.zeros(2, dtype=torch.int64), Segments.uniform(2, 3))
    >>> draws.uniform(1).shape, draws.rows(4).shape, draws.counter.tolist()
    (torch.Size([2, 1]), torch.Size([6, 4]), [13, 13])
    """

    def __init__(self, key: torch.Tensor, counter: torch.Tensor, segments: Segments) -> None:
        self.key, self.counter, self.segments = key, counter, segments

    def uniform(self, size: int) -> torch.Tensor:
        """Return numbers (n_problems, size) in [0, 1)."""
        drawn = uniform(self.key, self.counter, size)
        self.counter = self.counter + size
        return drawn

    def rows(self, width: int) -> torch.Tensor:
        """Return numbers (n_rows, width) in [0, 1)."""
        segments = self.segments
        if segments.size is not None:
            return self.uniform(segments.size * width).reshape(segments.n_rows, width)
        within = torch.arange(segments.n_rows, device=self.key.device) - segments.rows_of(segments.ptr[:-1])
        drawn = uniform(segments.rows_of(self.key), segments.rows_of(self.counter) + within * width, width)
        self.counter = self.counter + segments.counts * width
        return drawn

    def normal_rows(self, width: int) -> torch.Tensor:
        """Return standard normal numbers (n_rows, width) (Box & Muller)."""
        pairs = self.rows(2 * width)
        radius = (-2.0 * torch.log1p(-pairs[:, :width])).sqrt()
        return radius * torch.cos(2.0 * math.pi * pairs[:, width:])

"""The conditions that end a minimisation, and the reason that each problem is given."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Literal

from mlopt.core.errors import InputError

OnTarget = Literal["continue", "stop-start", "stop-run"]


class Reason(enum.Enum):
    """The reason why a problem ended. Its value is the sentence shown to people."""

    RUNNING = "still running"
    CONVERGED = "the largest force fell below the threshold"
    BUDGET = "the budget of force calls is spent"
    TARGET = "the target energy was reached"
    RUN_TARGET = "another start reached the target energy and the run was told to stop there"
    TIME = "the time budget is spent"
    NON_FINITE = "energy or force became NaN or infinite"
    CONTACT = "two atoms came closer than the shortest distance allowed"
    EXPLODED = "its energy exploded: the time step is too long, or the potential is unsound there"

    @property
    def code(self) -> int:
        """The position in the list, which state tensors hold."""
        return list(Reason).index(self)

    @property
    def is_failure(self) -> bool:
        """True for the end of a problem whose last point means nothing."""
        return self in (Reason.NON_FINITE, Reason.CONTACT, Reason.EXPLODED)


@dataclass(frozen=True)
class Stop:
    """The conditions under which a problem, or the whole run, ends.

    force_calls: evaluations that each problem may use; the one at the start counts.
    fmax: force threshold, below which a problem ends. Not for searches, which go on after a minimum.
    target: energy to reach. Energies up to `target_tolerance` above it count as well, because a loosely quenched
        minimum lies slightly higher.
    on_target: go on, end that start, or end the run.

    >>> Stop(force_calls=2_000, target=-44.3268, on_target="stop-run").target_tolerance
    0.001
    """

    force_calls: int = 10_000
    fmax: float | None = None
    target: float | None = None
    target_tolerance: float = 1e-3
    on_target: OnTarget = "continue"

    def __post_init__(self) -> None:
        if self.force_calls < 1:
            raise InputError(f"`force_calls` must be at least 1, got {self.force_calls}")
        if self.fmax is not None and not (self.fmax > 0 and math.isfinite(self.fmax)):
            raise InputError(f"`fmax` must be positive and finite, got {self.fmax}")
        if self.target_tolerance < 0:
            raise InputError(f"`target_tolerance` must not be negative, got {self.target_tolerance}")
        if self.on_target != "continue" and self.target is None:
            raise InputError(f"`on_target: {self.on_target}` needs a `target` energy")

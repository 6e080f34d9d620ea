"""Simulated annealing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Self

from pydantic import model_validator

from mlopt.core.batch.random import Draws
from mlopt.core.landscapes.evaluation import Evaluation
from mlopt.core.landscapes.landscape import Landscape
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import setting
from mlopt.core.protocols.optimizer import Optimizer, State, per_problem, per_row

#: factor on the step after an accepted move; rejected ones undo it at the rate that balances at `target`
_WIDEN = 1.05


@dataclass(frozen=True)
class AnnealingState(State):
    """The walk of each problem.

    key, counter (n,) int64: random numbers.
    moves (n,) int64: moves judged so far, -1 before the first evaluation.
    x (n_rows, d), energy (n,): the present point.
    size (n,): factor on moves.
    temperature (n,): temperature in units of energy.
    rises (n, calibration): rises in energy seen while calibrating. A fall counts as 0, a non-finite energy as infinity.
    """

    key: torch.Tensor = per_problem()
    counter: torch.Tensor = per_problem()
    moves: torch.Tensor = per_problem()
    x: torch.Tensor = per_row()
    energy: torch.Tensor = per_problem()
    size: torch.Tensor = per_problem()
    temperature: torch.Tensor = per_problem()
    rises: torch.Tensor = per_problem()


class SimulatedAnnealing(Optimizer):
    """Simulated annealing (Kirkpatrick, Gelatt & Vecchi, Science 220, 671 (1983)): one move, one evaluation a step.

    A move displaces all rows by normal numbers. It is accepted with probability min(1, exp(-rise / temperature)). The
    temperature falls geometrically over ``steps`` moves and then stays.

    The first ``calibration`` moves set the first temperature, as in Ben-Ameur, Comput. Optim. Appl. 29, 369 (2004). The
    Amp report advises a temperature at which 98 % of the moves are accepted. Rises in energy are noted, and the
    temperature solves mean(min(1, exp(-rise / T))) = ``start_acceptance`` by bisection. These moves are accepted only
    if the energy falls. To accept rises would be to walk at infinite temperature, where atoms overlap and energies mean
    nothing. Non-finite energies are rejected and do not count.

    The result is the lowest point met, which is no minimum: quench it afterwards. Free clusters evaporate at 98 %
    acceptance, and starts with overlapping atoms calibrate to their overlaps. Give these a ``start_temperature`` near
    melting (about 0.5 for Lennard-Jones) and a ``cooling`` of 0.05.
    """

    searching: ClassVar[bool] = True
    recovers: ClassVar[bool] = True

    steps: int = setting(10_000, "moves until the last temperature; usually the budget of force calls", ge=2)
    step_size: float = setting(
        0.05,
        "initial standard deviation of a component of a move",
        unit="diameter, or length where rows have none",
        gt=0,
    )
    start_temperature: float | None = setting(
        None, "initial temperature; none: from the first moves", unit="energy", gt=0
    )
    start_acceptance: float = setting(
        0.98, "share of moves to accept at the start, for calibration", gt=0, lt=1
    )
    calibration: int = setting(50, "number of moves that set the initial temperature", ge=1)
    cooling: float = setting(1e-4, "last temperature as a share of the first", gt=0, le=1)
    adapt: bool = setting(True, "adapt the size of moves towards the acceptance `target` after calibration")
    target: float = setting(0.5, "share of moves to accept, by adaptation", gt=0, lt=1)
    max_growth: float = setting(10.0, "largest size of moves, in initial sizes", ge=1)

    @model_validator(mode="after")
    def _long_enough(self) -> Self:
        if self.steps <= self._calibration:
            raise ValueError(
                f"steps must be more than calibration, got {self.steps} and {self.calibration}: "
                f"nothing would be left for cooling; give more steps, or a start_temperature"
            )
        return self

    @property
    def _calibration(self) -> int:
        return self.calibration if self.start_temperature is None else 0

    def init(self, landscape: Landscape, x: torch.Tensor, key: torch.Tensor) -> AnnealingState:
        """Return the state before the first evaluation, which is that of the start itself."""
        n = landscape.segments.n_problems
        integers = torch.zeros(n, dtype=torch.int64, device=x.device)
        ones = x.new_ones(n)
        return AnnealingState(
            key=key,
            counter=integers,
            moves=integers - 1,
            x=x,
            energy=x.new_full((n,), torch.inf),
            size=ones * self.step_size,
            temperature=ones * (0.0 if self.start_temperature is None else self.start_temperature),
            rises=x.new_zeros(n, self._calibration),
        )

    def step(
        self, landscape: Landscape, x: torch.Tensor, evaluation: Evaluation, state: AnnealingState
    ) -> tuple[torch.Tensor, AnnealingState]:
        """Judge the last move, cool, and propose the next one."""
        segments, manifold = landscape.segments, landscape.manifold
        draws = Draws(state.key, state.counter, segments)
        kick = draws.normal_rows(x.shape[1]).to(x)
        # log of 1 - u with u in [0, 1): finite, and -T log(1 - u) is how much higher this move may go
        allowed = -state.temperature * torch.log1p(-draws.uniform(1)[:, 0]).to(x)
        rise = evaluation.energy - state.energy
        accept = torch.isfinite(evaluation.energy) & (rise <= allowed)
        energy = torch.where(accept, evaluation.energy, state.energy)
        here = torch.where(segments.rows_of(accept)[:, None], x, state.x)

        moves = state.moves + 1
        temperature, rises = self._cool(rise, moves, state)
        size = state.size
        if self.adapt:
            narrow = math.exp(-math.log(_WIDEN) * self.target / (1.0 - self.target))
            factor = torch.where(accept, _WIDEN, narrow).masked_fill(moves <= self._calibration, 1.0).to(size)
            size = (size * factor).clamp(max=self.step_size * self.max_growth)
        unit = kick if landscape.diameter is None else kick * landscape.diameter.to(x)[:, None]
        unit = segments.scale(size, unit)
        if landscape.fixed is not None:
            unit = unit.masked_fill(landscape.fixed[:, None], 0.0)
        new_x = manifold.retract(here, manifold.project(here, unit))
        return new_x, AnnealingState(state.key, draws.counter, moves, here, energy, size, temperature, rises)

    def _cool(
        self, rise: torch.Tensor, moves: torch.Tensor, state: AnnealingState
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the temperature (n,) after ``moves (n,)`` moves, and the rises (n, calibration) noted so far."""
        width, rises, temperature = self._calibration, state.rises, state.temperature
        factor = math.exp(math.log(self.cooling) / (self.steps - width))
        temperature = torch.where((moves > width) & (moves <= self.steps), temperature * factor, temperature)
        if width and bool((moves <= width).any()):
            noted = torch.where(torch.isfinite(rise), rise.clamp(min=0.0), torch.inf)
            column = torch.arange(1, width + 1, device=moves.device) == moves[:, None]
            rises = torch.where(column, noted[:, None], rises)
            temperature = torch.where(moves == width, self._solve(rises), temperature)
        return temperature, rises

    def _solve(self, rises: torch.Tensor) -> torch.Tensor:
        """Return the temperature (n,) that accepts the share ``start_acceptance`` of ``rises (n, calibration)``."""
        finite = torch.isfinite(rises)
        highest = torch.where(finite, rises, 0.0).amax(-1).clamp(min=torch.finfo(torch.float32).tiny)
        # T = highest / -log(acceptance) accepts at least that share even if all rises were the highest
        low, high = highest * 1e-6, highest / -math.log(self.start_acceptance)
        count = finite.sum(-1).clamp(min=1)
        for _ in range(60):
            middle = (low * high).sqrt()
            chance = torch.where(finite, torch.exp(-rises / middle[:, None]), 0.0).sum(-1) / count
            enough = chance >= self.start_acceptance
            low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
        return high

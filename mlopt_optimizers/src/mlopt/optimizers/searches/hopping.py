"""The base of basin hopping and random restarts: quench, judge, leave, and quench again, at each problem's pace."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any

from mlopt.core.batch.random import Draws
from mlopt.core.landscapes.evaluation import Evaluation
from mlopt.core.landscapes.landscape import Landscape
from mlopt.core.lazy import torch
from mlopt.core.protocols.optimizer import per_problem, per_row
from mlopt.optimizers.moves.basic import close_packed, free_rows
from mlopt.optimizers.searches.quenching import Quenching, QuenchingState, mean_squares


@dataclass(frozen=True)
class HoppingState(QuenchingState):
    """A search between two steps.

    quench_calls (n,) int64: force calls of the present quench.
    row_energy (n_rows,): energies of the rows at the current minimum.
    scale, temperature (n,): present factor on moves, and temperature of the acceptance test.
    hops, accepted (n,) int64: hops since the start, and those accepted in the present window of adaptation.
    """

    quench_calls: torch.Tensor = per_problem()
    row_energy: torch.Tensor = per_row()
    scale: torch.Tensor = per_problem()
    temperature: torch.Tensor = per_problem()
    hops: torch.Tensor = per_problem()
    accepted: torch.Tensor = per_problem()


class Hopping(Quenching):
    """Base of searches that quench, hop, and quench again. Subclasses write `hop`."""

    def init(self, landscape: Landscape, x: torch.Tensor, key: torch.Tensor) -> HoppingState:
        """Return the state before the first quench."""
        integers = torch.zeros(landscape.segments.n_problems, dtype=torch.int64, device=x.device)
        ones = x.new_ones(len(integers))
        return HoppingState(
            **self.begun(landscape, x, key),
            quench_calls=integers,
            row_energy=x.new_zeros(len(x)),
            scale=ones,
            temperature=ones * self.initial_temperature,
            hops=integers,
            accepted=integers,
        )

    @property
    def initial_temperature(self) -> float:
        """The temperature of the first hop."""
        return torch.inf

    def step(
        self, landscape: Landscape, x: torch.Tensor, evaluation: Evaluation, state: HoppingState
    ) -> tuple[torch.Tensor, HoppingState]:
        """Take a step of the quench, or a hop where the quench has ended."""
        segments = landscape.segments
        mean2, sound = mean_squares(landscape, evaluation)
        quiet = sound & (mean2 <= self.enough2(evaluation, state))
        calls = state.quench_calls + 1
        ended = quiet | ~sound | (calls >= self.quench_calls)
        new_x, inner = self.quench.step(landscape, x, evaluation, state.inner)
        state = replace(
            state,
            inner=inner,
            quench_calls=calls.masked_fill(ended, 0),
            arrived=ended & sound,
            found_energy=evaluation.energy,
            found_x=x,
        )
        # nor is a finite energy with a non-finite force one to accept
        evaluation = replace(evaluation, energy=torch.where(sound, evaluation.energy, torch.nan))
        problems = torch.nonzero(ended).flatten()
        if not problems.numel():
            return new_x, state
        part, (_, rows) = landscape.select(problems), segments.select(problems)
        moved, there = self.select(problems)._leave(
            part, x[rows], evaluation.select(problems, rows), state.select(problems, rows)
        )
        return new_x.index_copy(0, rows, moved), state.put(problems, rows, there)

    def enough2(self, evaluation: Evaluation, state: Any) -> float | torch.Tensor:
        """Return the mean squared force component at which a quench ends: a number, or (n_problems,)."""
        return self.quench_tolerance**2

    def _leave(
        self, landscape: Landscape, x: torch.Tensor, evaluation: Evaluation, state: HoppingState
    ) -> tuple[torch.Tensor, HoppingState]:
        """Hop from the minima ``x (n_rows, d)`` of problems that have all just ended a quench."""
        draws = Draws(state.key, state.counter, landscape.segments)
        x, state = self.hop(landscape, x, evaluation, replace(state, hops=state.hops + 1), draws)
        inner = self.quench.init(landscape, x, state.key)
        return x, replace(state, inner=inner, counter=draws.counter)

    @abstractmethod
    def hop(
        self, landscape: Landscape, x: torch.Tensor, evaluation: Evaluation, state: HoppingState, draws: Draws
    ) -> tuple[torch.Tensor, HoppingState]:
        """Judge the minimum ``x (n_rows, d)``, whose energy may be non-finite, and propose where to quench next."""
        raise NotImplementedError(f"{type(self).__name__} must define `hop`")

    def metropolis(
        self, landscape: Landscape, x: torch.Tensor, evaluation: Evaluation, state: Any, draws: Draws
    ) -> Any:
        """Accept the minimum ``x (n_rows, d)`` with probability min(1, exp(-(E_new - E_old) / temperature))."""
        rise = evaluation.energy - state.energy
        chance = torch.where(rise <= 0, 1.0, torch.exp(-rise / state.temperature.clamp(min=1e-300)))
        # NaN and infinite energies compare false; the first minimum has an infinitely high one before it
        accept = (draws.uniform(1)[:, 0] < chance) & torch.isfinite(evaluation.energy)
        rows = landscape.segments.rows_of(accept)
        known = evaluation.row_energy
        return replace(
            state,
            x=torch.where(rows[:, None], x, state.x),
            energy=torch.where(accept, evaluation.energy, state.energy),
            row_energy=state.row_energy if known is None else torch.where(rows, known, state.row_energy),
            accepted=state.accepted + accept,
        )


def contained(landscape: Landscape, x: torch.Tensor, container: float | None) -> torch.Tensor:
    """Pull evaporated rows of ``x (n_rows, d)`` back, as GMIN's container does, where rows are atoms of free clusters.

    container: largest distance from the centre, in radii of a close-packed ball with one diameter of room.
    """
    if container is None or landscape.diameter is None or x.shape[1] != 3:
        return x
    segments = landscape.segments
    ball = segments.max(landscape.diameter.to(x)) * (1.0 + close_packed(segments.counts.to(x)))
    away = x - segments.rows_of(segments.mean_rows(x))
    distance = (away * away).sum(-1).sqrt()
    factor = (container * segments.rows_of(ball) / distance.clamp(min=1e-12)).clamp(max=1.0)
    outside = (factor < 1.0) & free_rows(landscape, x)
    return torch.where(outside[:, None], x - away * (1.0 - factor)[:, None], x)

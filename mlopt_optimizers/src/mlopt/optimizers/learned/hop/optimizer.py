"""Basin hopping whose hop is learned: a small network chooses moves, steps and temperature after each quench."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from mlopt.core.batch.random import Draws, uniform
from mlopt.core.errors import InputError
from mlopt.core.features.neighbourhood import Neighbourhood
from mlopt.core.kernels.kernel import Kernel, NoKernelError, OptimizerKernel
from mlopt.core.landscapes.evaluation import Evaluation
from mlopt.core.landscapes.landscape import Landscape
from mlopt.core.lazy import torch
from mlopt.core.protocols.move import Move
from mlopt.core.protocols.optimizer import per_problem
from mlopt.optimizers.learned.hop.network import quench_of, say, size_of
from mlopt.optimizers.learned.hop.settings import HopSettings
from mlopt.optimizers.learned.kernels import hop as kernels
from mlopt.optimizers.learned.step.inputs import atoms_of
from mlopt.optimizers.moves.basic import (
    Exchange,
    Restart,
    close_packed,
    free_rows,
    row_diameter,
    to_surface,
)
from mlopt.optimizers.moves.cluster import ClusterMove
from mlopt.optimizers.searches.basin_hopping import hopping_kernel
from mlopt.optimizers.searches.hopping import HoppingState, contained


@dataclass(frozen=True)
class LearnedHoppingState(HoppingState):
    """A search between two steps, with the inputs of the network about it.

    best, lowest (n,): energies of the lowest minima, ever and since the last new start.
    unit (n,): unit of energies.
    since, calls (n,) int64: hops since the lowest minimum became lower, and force calls.
    choice (n,) int64: the last move, 0 for a displacement.
    """

    best: torch.Tensor = per_problem()
    lowest: torch.Tensor = per_problem()
    unit: torch.Tensor = per_problem()
    since: torch.Tensor = per_problem()
    calls: torch.Tensor = per_problem()
    choice: torch.Tensor = per_problem()


class LearnedHopping(HopSettings):
    """Basin hopping with a learned hop and an ordinary quench.

    After each quench and its Metropolis test, a network of twelve tanh units looks at the current minimum.

    - Inputs about each atom: how loosely it is bound, its distance from the centre, and their product.
    - Inputs about the search: two heights, the hops since the lowest minimum became lower, the share of `horizon` used,
      and a random number. The heights are that of the minimum above the lowest one since the last new start, and that
      of the latter above the lowest ever.
    - Outputs about the search: the odds of each move, and the temperature of the next Metropolis test. A move is a
      displacement or one of `moves`.
    - Outputs about each atom, for a displacement: the size of its step, and its odds of going to the surface.

    Two more numbers are about the quench: a factor on its tolerance, and how much the tolerance widens with the height
    above the current minimum. So a quench that will be refused anyway ends early.

    The unit of energy is the difference between the mean binding of the minimum's atoms and the strongest binding.
    Lengths are in diameters, or in radii of the cluster. So theta serves any potential and size. A move that can do
    nothing is not chosen. Examples are an exchange among atoms of one species, and a cluster move where atoms are fixed
    or periodic.

    ``weights`` is the name of weights that ship, or a file (see `mlopt.core.files.weights`). They bring the settings of
    their training; all but the moves may be given otherwise. Without weights the search is close to plain basin
    hopping. Through `replace`, ``theta`` may be a tensor (p,), or (n_problems, p) with one network a problem.

    Raises, at the first hop:
        InputError: the potential does not give the energies of atoms.
    """

    def select(self, problems: torch.Tensor) -> Self:
        """See `Optimizer.select`; a network that all problems share stays whole."""
        theta = self.parameters
        part = super(LearnedHopping, self.replace(theta=None)).select(problems)
        return part.replace(theta=theta[problems] if theta.ndim == 2 else theta)

    def init(self, landscape: Landscape, x: torch.Tensor, key: torch.Tensor) -> LearnedHoppingState:
        """Return the state before the first quench.

        Raises:
            InputError: theta has a wrong shape, or numbers that are not finite.
        """
        n = landscape.segments.n_problems
        problem = self._wrong_with(self.theta)
        if problem is None and self.parameters.ndim != 1 and self.parameters.shape[:-1] != (n,):
            problem = f"`theta` must have shape (p,) or ({n}, p) for {n} problems, got {tuple(self.parameters.shape)}"
        if problem is not None:
            raise InputError(problem)
        state, integers = super().init(landscape, x, key), torch.zeros(n, dtype=torch.int64, device=x.device)
        infinite = x.new_full((n,), torch.inf)
        own = {"best": infinite, "lowest": infinite, "unit": x.new_ones(n)}
        return LearnedHoppingState(**vars(state), **own, since=integers, calls=integers, choice=integers)

    def step(
        self, landscape: Landscape, x: torch.Tensor, evaluation: Evaluation, state: HoppingState
    ) -> tuple[torch.Tensor, HoppingState]:
        """Take a step of the quench, or a hop where the quench has ended."""
        x, after = super().step(landscape, x, evaluation, state)
        return x, replace(after, calls=after.calls + 1)  # type: ignore[attr-defined,call-arg]

    def enough2(self, evaluation: Evaluation, state: LearnedHoppingState) -> torch.Tensor:
        """Return the squared tolerance (n,), which is wider high above the current minimum."""
        tolerance, widening = self._quench(evaluation.energy)
        rise = (evaluation.energy - state.energy) / state.unit
        height = torch.where(state.energy.isfinite() & (rise > 0), rise.clamp(max=kernels.HIGHEST), 0.0)
        wide = 1.0 + widening * height
        return (tolerance * wide * wide) ** 2

    def _quench(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        factor, widening = quench_of(self.hop_parameters)
        return (self.quench_tolerance * factor).to(like), widening.to(like)

    def hop(  # type: ignore[override]
        self,
        landscape: Landscape,
        x: torch.Tensor,
        evaluation: Evaluation,
        state: LearnedHoppingState,
        draws: Draws,
    ) -> tuple[torch.Tensor, LearnedHoppingState]:
        """Accept or reject the minimum, ask the network, make the move that it chose, and pull evaporated rows back."""
        if evaluation.row_energy is None:
            raise InputError(
                "learned-hopping looks at the energy of each atom, which this landscape does not tell (`row_energy`); "
                "take basin-hopping"
            )
        state = _noted(self.metropolis(landscape, x, evaluation, state, draws), evaluation)
        segments = landscape.segments
        number, noise, away_number = _numbers(state, landscape)
        atoms, system, ratio, unit = self._seen(landscape, state, noise.to(x))
        said = say(
            self.hop_parameters.to(x),
            atoms,
            system,
            segments,
            1 + len(self.moves),
            self._heard(landscape, state.x),
        )
        odds = said.away + kernels.SHARPNESS * (kernels.LOOSE - ratio)
        away = away_number.to(x) < 1.0 / (1.0 + torch.exp(-odds))
        size = torch.exp(said.step.clamp(kernels.SHORTEST, kernels.LONGEST))
        choice = _choose(number.to(x), said.odds, self._useless(landscape, x))
        heat = torch.exp(said.heat.clamp(kernels.COLDEST, kernels.HOTTEST))
        moved = self._displaced(landscape, state, size, away & free_rows(landscape, x), choice == 0, draws)
        for index, move in enumerate(self.moves, start=1):
            chosen = choice == index
            moved = _made(move, torch.nonzero(chosen).flatten(), landscape, moved, state, draws)
        if landscape.fixed is not None:
            moved = torch.where(landscape.fixed[:, None], state.x, moved)
        fresh = choice == self._restart
        state = replace(
            state,
            temperature=kernels.TEMPERATURE_UNIT * unit * heat,
            unit=unit,
            choice=choice,
            energy=state.energy.masked_fill(fresh, torch.inf),
            lowest=state.lowest.masked_fill(fresh, torch.inf),
            since=state.since.masked_fill(fresh, 0),
        )
        return contained(landscape, moved, self.container), state

    def _seen(
        self, landscape: Landscape, state: LearnedHoppingState, noise: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the inputs of the network about atoms (n_rows, 2) and systems (n, 5), and two things besides.

        These are each atom's share (n_rows,) of the strongest binding, and the unit of energies (n,).
        """
        segments, x = landscape.segments, state.x
        strongest = -segments.max(-state.row_energy)
        mean = segments.sum(state.row_energy) / segments.counts
        unit = torch.maximum(mean - strongest, kernels.FLATTEST * strongest.abs())
        unit = torch.where(unit == 0, 1.0, unit)
        lowest = segments.rows_of(strongest)
        ratio = torch.where(lowest < 0, state.row_energy / lowest, 1.0)
        outward = x - segments.rows_of(segments.mean_rows(x))
        radius = segments.rows_of(close_packed(segments.counts.to(x))) * row_diameter(landscape, x)
        distance = (outward * outward).sum(-1).sqrt() / radius
        atoms = torch.stack([(state.row_energy - lowest) / segments.rows_of(unit), distance], -1)
        known = state.energy.isfinite() & state.lowest.isfinite()
        heights = [state.energy - state.lowest, state.lowest - state.best]
        system = [
            *(torch.where(known, torch.log1p(one.clamp(min=0.0) / unit), 0.0) for one in heights),
            torch.log1p(state.since.to(x)) / 3.0,
            (state.calls.to(x) / self.horizon).clamp(max=1.0),
            noise,
        ]
        return atoms, torch.stack(system, -1), ratio, unit

    def _heard(self, landscape: Landscape, x: torch.Tensor) -> torch.Tensor | None:
        """Return the input (n_rows, 12) of each unit from messages about ``x (n_rows, d)``, if there are any."""
        part = self.message_part
        if part is None:
            return None
        atoms = atoms_of(landscape)
        if atoms is None:
            raise InputError("learned-hopping: `messages` need atoms; leave them out for other landscapes")
        graph = Neighbourhood(cutoff=self.cutoff).graph(atoms.systems.with_pos(x), atoms.diameter)
        theta = self.parameters[..., size_of(1 + len(self.moves)) :].to(x)
        return part.heard(theta, landscape.segments, x, graph, atoms.species, atoms.diameter.to(x))

    def _useless(self, landscape: Landscape, x: torch.Tensor) -> torch.Tensor:
        """Return the moves (n, 1 + moves) bool that can do nothing."""
        segments = landscape.segments
        caged = segments.max((~free_rows(landscape, x)).to(x)) > 0
        alike = torch.ones_like(caged)
        if landscape.species is not None:
            kinds = landscape.species.to(torch.float64)
            alike = segments.max(kinds) == -segments.max(-kinds)
        never = torch.zeros_like(caged)
        return torch.stack([never, *(_needs(one, never, caged, alike) for one in self.moves)], -1)

    def _displaced(
        self,
        landscape: Landscape,
        state: LearnedHoppingState,
        size: torch.Tensor,
        away: torch.Tensor,
        chosen: torch.Tensor,
        draws: Draws,
    ) -> torch.Tensor:
        """Displace rows of the ``chosen (n,)`` problems, and put some of them on the surface.

        size (n_rows,): of each row's random vector. away (n_rows,) bool: rows that go to the surface.
        """
        x, segments, before = state.x, landscape.segments, draws.counter
        kick, numbers = 2.0 * draws.rows(x.shape[1]) - 1.0, draws.rows(2).to(x)
        length = kernels.STEP * segments.rows_of(state.scale) * row_diameter(landscape, x) * size
        moved = landscape.manifold.retract(x, landscape.manifold.project(x, kick.to(x) * length[:, None]))
        moved = to_surface(moved, away, numbers, segments)
        draws.counter = torch.where(chosen, draws.counter, before)
        return torch.where(segments.rows_of(chosen)[:, None], moved, x)

    @property
    def _restart(self) -> int:
        """Return the number of the move that is a new start, or -1."""
        return next((place for place, one in enumerate(self.moves, 1) if isinstance(one, Restart)), -1)

    def kernel(self) -> OptimizerKernel:
        """See `Optimizer.kernel`; the quench and all moves must have kernels."""
        if self.messages:
            raise NoKernelError("learned-hopping offers no kernel with `messages`")
        places = list(enumerate(self.moves, 1))
        constants = {
            "INNER_NUMBERS": kernels.UNIT + 1,
            "INNER_COUNTS": kernels.CHOICE + 1,
            "CONTAINED": self.container is not None,
            "CHOICES": 1 + len(places),
            "FOR_CLUSTERS": sum(1 << j for j, one in places if _for_clusters(one)),
            "FOR_KINDS": sum(1 << j for j, one in places if isinstance(one, Exchange)),
            "RESTART": self._restart,
        }
        proposals = [Kernel(kernels.displace), *(one.kernel() for one in self.moves)]
        tolerance, widening = quench_of(self.hop_parameters)
        enough = (self.quench_tolerance * tolerance, widening)
        parts = {
            "enough2": Kernel(kernels.enough2, enough),
            "decide": Kernel(kernels.decide, (self.horizon,), constants, theta=self.parameters),
            "moves": [
                Kernel(kernels.chosen, (), {"WHICH": j}, {"propose": one}) for j, one in enumerate(proposals)
            ],
        }
        # the tolerance and the adaptation of basin hopping, which are not asked for
        settings = (self.quench_tolerance, self.quench_calls, self.container or 0.0, 0.5)
        return hopping_kernel(self.quench.kernel(), settings, constants, parts, kernels.step)


def _made(
    move: Move,
    problems: torch.Tensor,
    landscape: Landscape,
    x: torch.Tensor,
    state: LearnedHoppingState,
    draws: Draws,
) -> torch.Tensor:
    """Return ``x (n_rows, d)`` after a move of ``problems``. The others draw no random numbers for it."""
    if not problems.numel():
        return x
    part, (segments, rows) = landscape.select(problems), landscape.segments.select(problems)
    own = Draws(draws.key[problems], draws.counter[problems], segments)
    moved = move.propose(part, x[rows], state.row_energy[rows], state.scale[problems], own)
    draws.counter = draws.counter.index_copy(0, problems, own.counter)
    return x.index_copy(0, rows, moved)


def _for_clusters(move: Move) -> bool:
    return isinstance(move, ClusterMove | Restart)


def _needs(move: Move, never: torch.Tensor, caged: torch.Tensor, alike: torch.Tensor) -> torch.Tensor:
    if isinstance(move, Exchange):
        return alike
    return caged if _for_clusters(move) else never


def _noted(state: LearnedHoppingState, evaluation: Evaluation) -> LearnedHoppingState:
    """Return the state with the minimum, at which the quench has ended, in the record."""
    found = torch.where(evaluation.energy.isfinite(), evaluation.energy, torch.inf)
    lower = found < state.lowest - kernels.MARGIN * state.unit
    return replace(
        state,
        lowest=torch.minimum(state.lowest, found),
        best=torch.minimum(state.best, found),
        since=torch.where(lower, 0, state.since + 1),
    )


def _numbers(
    state: LearnedHoppingState, landscape: Landscape
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the random numbers of this hop: for the choice (n,), noise in [-1, 1) (n,), and one a row (n_rows,).

    Their counters are below 0.
    """
    segments = landscape.segments
    first = -state.hops * (segments.counts + 2)
    two = uniform(state.key, first, 2)
    within = torch.arange(segments.n_rows, device=first.device) - segments.rows_of(segments.ptr[:-1])
    rows = uniform(segments.rows_of(state.key), segments.rows_of(first) + 2 + within, 1)
    return two[:, 0], 2.0 * two[:, 1] - 1.0, rows[:, 0]


def _choose(number: torch.Tensor, logits: torch.Tensor, useless: torch.Tensor) -> torch.Tensor:
    """Return the index (n,) of a move, chosen by numbers in [0, 1)."""
    odds = torch.exp(logits - logits.amax(-1, keepdim=True)).masked_fill(useless, 0.0).unbind(-1)
    whole = torch.zeros_like(number)
    for one in odds:
        whole = whole + one
    choice, reached = torch.zeros_like(number, dtype=torch.int64), torch.zeros_like(number)
    for j, one in enumerate(odds):
        choice = torch.where((one > 0) & (number * whole >= reached), j, choice)
        reached = reached + one
    return choice

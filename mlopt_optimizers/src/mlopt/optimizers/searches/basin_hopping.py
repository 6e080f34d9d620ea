"""Basin hopping: Monte Carlo over minima."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import model_validator

from mlopt.core.batch.random import Draws, uniform
from mlopt.core.kernels.kernel import Kernel, OptimizerKernel
from mlopt.core.landscapes.evaluation import Evaluation
from mlopt.core.landscapes.landscape import Landscape
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import FromRegistry, setting
from mlopt.core.protocols.move import Move
from mlopt.optimizers.moves.basic import Angular, Displacement
from mlopt.optimizers.moves.kernels import basic as move_kernels
from mlopt.optimizers.searches.hopping import Hopping, HoppingState, contained
from mlopt.optimizers.searches.kernels import basin_hopping as kernels


class BasinHopping(Hopping):
    """Basin hopping (Li & Scheraga, PNAS 84, 6611 (1987); Wales & Doye, J. Phys. Chem. A 101, 5111 (1997)).

    After each quench the new minimum is accepted with probability min(1, exp(-(E_new - E_old) / temperature)). Then
    every move is applied in turn to the accepted minimum. A quench that ends in a non-finite energy is rejected.
    """

    temperature: float = setting(
        0.8, "temperature of the Metropolis test; 0 accepts improvements only", unit="energy", ge=0
    )
    moves: list[Annotated[Move, FromRegistry("move")]] = setting(
        [Displacement(), Angular()], "moves by which a minimum is left", min_length=1
    )
    combine: Literal["all", "one"] = setting(
        "all",
        "all: every move one after the other, each in its share of the hops; one: one move per hop, "
        "with the shares as weights",
    )
    container: float | None = setting(
        1.3,
        "radius to which distant rows are pulled back, in radii of a close-packed ball; none: no container",
        gt=0,
    )
    acceptance: float = setting(0.5, "share of hops to accept, by adaptation", gt=0, lt=1)
    adapt_step: bool = setting(False, "adapt the size of moves to `acceptance`, every 50 hops")
    adapt_temperature: bool = setting(False, "adapt the temperature to `acceptance`, every 50 hops")

    @model_validator(mode="after")
    def _something_to_do(self) -> Self:
        if self.combine == "one" and not sum(move.probability for move in self.moves):
            raise ValueError("`combine: one` draws one of the moves, but the `probability` of each is 0")
        return self

    @property
    def initial_temperature(self) -> float:
        """The temperature before any adaptation."""
        return self.temperature

    def hop(
        self, landscape: Landscape, x: torch.Tensor, evaluation: Evaluation, state: HoppingState, draws: Draws
    ) -> tuple[torch.Tensor, HoppingState]:
        """Accept or reject the minimum, adapt, move, and pull evaporated rows back."""
        state = self.metropolis(landscape, x, evaluation, state, draws)
        if self.adapt_step or self.adapt_temperature:
            state = self._adapt(state)
        known = None if evaluation.row_energy is None else state.row_energy
        moved, number = state.x, uniform(state.key, -state.hops - 1, 1)[:, 0]
        for move, (low, high) in zip(self.moves, self._shares(), strict=True):
            if self.combine == "one":
                chosen = (low <= number) & (number < high)
                moved = move.apply_where(chosen, landscape, moved, known, state.scale, draws)
            else:
                moved = move.apply(landscape, moved, known, state.scale, draws)
        if landscape.fixed is not None:
            moved = torch.where(landscape.fixed[:, None], state.x, moved)
        return contained(landscape, moved, self.container), state

    def _shares(self) -> list[tuple[float, float]]:
        """Return, for each move, lower and upper bound of the random numbers that choose it."""
        weights = [move.probability for move in self.moves]
        edges = [0.0, *accumulate(weights)]
        whole = edges[-1] or 1.0
        return [(low / whole, high / whole) for low, high in pairwise(edges)]

    def _adapt(self, state: HoppingState) -> HoppingState:
        """Adapt moves or temperature towards the wanted share of accepted hops, at the end of a window."""
        due = state.hops % kernels.WINDOW == 0
        often = state.accepted > self.acceptance * kernels.WINDOW
        one = torch.ones_like(state.scale)  # `where` of two plain numbers would be float32
        up, down = one.masked_fill(due & often, kernels.FACTOR), one.masked_fill(due & ~often, kernels.FACTOR)
        scale = state.scale * up / down if self.adapt_step else state.scale
        temperature = state.temperature * down / up if self.adapt_temperature else state.temperature
        return replace(
            state, scale=scale, temperature=temperature, accepted=state.accepted.masked_fill(due, 0)
        )

    def kernel(self) -> OptimizerKernel:
        """See `Optimizer.kernel`; the quench and all moves must have kernels."""
        container = 0.0 if self.container is None else self.container
        settings = (self.quench_tolerance, self.quench_calls, container, self.acceptance)
        constants = {
            "ADAPT_STEP": self.adapt_step,
            "ADAPT_TEMPERATURE": self.adapt_temperature,
            "CONTAINED": self.container is not None,
        }
        one = self.combine == "one"
        moves = [
            Kernel(
                move_kernels.sometimes,
                share if one else (move.probability,),
                {"ONE": one},
                {"propose": move.kernel()},
            )
            for move, share in zip(self.moves, self._shares(), strict=True)
        ]
        return hopping_kernel(self.quench.kernel(), settings, constants, {"moves": moves})


def hopping_kernel(
    quench: OptimizerKernel,
    settings: tuple[Any, ...],
    constants: Mapping[str, int],
    parts: dict[str, Any],
    step: Any = None,
) -> OptimizerKernel:
    """Return the kernel of a search around a quench. ``step`` replaces that of basin hopping, and may call it."""
    parts = parts | {"quench_init": quench.init, "quench_step": quench.step}
    if quench.finish is not None:
        parts["quench_finish"] = quench.finish
    return OptimizerKernel(
        Kernel(kernels.init),
        Kernel(step or kernels.step, settings, constants, parts),
        Kernel(kernels.finish, settings, constants, parts),
        quench.spare_numbers,
        quench.spare_counts,
        quench.reals,
    )

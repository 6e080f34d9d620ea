"""Random restarts: quench, draw a new start, quench again."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from mlopt.core.batch.random import Draws, derive
from mlopt.core.errors import InputError
from mlopt.core.landscapes.evaluation import Evaluation
from mlopt.core.landscapes.landscape import AtomsLandscape, Landscape
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import FromRegistry, setting
from mlopt.core.protocols.start import StartSampler
from mlopt.optimizers.searches.hopping import Hopping, HoppingState
from mlopt.optimizers.starts.starts import SphereStart


class RandomRestarts(Hopping):
    """Quenches from one random start after another, which every search has to beat."""

    start: Annotated[StartSampler, FromRegistry("start")] = setting(
        SphereStart(), "distribution of the starting points"
    )

    def hop(
        self, landscape: Landscape, x: torch.Tensor, evaluation: Evaluation, state: HoppingState, draws: Draws
    ) -> tuple[torch.Tensor, HoppingState]:
        """Forget the minimum and draw a new start.

        Raises:
            InputError: the landscape is not one of atoms, for which starts could be drawn.
        """
        if not isinstance(landscape, AtomsLandscape):
            raise InputError("random-restarts draws starts for atoms; on another landscape use basin-hopping")
        key = derive(state.key, state.hops)
        given = landscape.systems
        if landscape.fixed is not None:
            given = given.with_pos(torch.where(landscape.fixed[:, None], x, given.pos.to(x)))
        fresh = self.start.sample(given, landscape.diameter, key).to(x)
        lower = evaluation.energy < state.energy
        rows = landscape.segments.rows_of(lower)[:, None]
        state = replace(
            state,
            x=torch.where(rows, x, state.x),
            energy=torch.where(lower, evaluation.energy, state.energy),
        )
        return fresh, state

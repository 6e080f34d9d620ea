"""Kernels find the fields of a state where the engine has put them: by the order in which the state declares them."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch

from mlopt.core.atoms.systems import Systems
from mlopt.core.batch.random import problem_keys
from mlopt.core.landscapes.landscape import AtomsLandscape
from mlopt.core.protocols.optimizer import Optimizer, State
from mlopt.optimizers import LBFGS, BasinHopping, Fire
from mlopt.optimizers.fused.pack import buckets_of, offsets, pack
from mlopt.optimizers.learned.hop.optimizer import LearnedHopping
from mlopt.optimizers.learned.kernels import hop
from mlopt.optimizers.local.kernels import fire, lbfgs
from mlopt.optimizers.moves.kernels import geometry
from mlopt.optimizers.searches.kernels import basin_hopping
from mlopt.potentials import LennardJones

N = 5
HOPPING = "x=0 FOUND_X ROW_ENERGY ENERGY FOUND_ENERGY SCALE TEMPERATURE ARRIVED QUENCH_CALLS ACCEPTED"


def begun(optimizer: Optimizer) -> tuple[AtomsLandscape, State]:
    systems = Systems.cluster([18] * N, 2)
    landscape = AtomsLandscape(systems, LennardJones())
    return landscape, optimizer.init(landscape, systems.pos, problem_keys(0, torch.arange(2)))


@pytest.mark.parametrize(
    ("optimizer", "module", "names"),
    [
        (LBFGS(), lbfgs, "x=0 FORCE STEP HISTORY energy=0 SY SHRINKS"),
        (Fire(), fire, "velocity=0 DT KICK ALPHA DOWNHILL AGE"),
        (BasinHopping(), basin_hopping, HOPPING),
        (BasinHopping(), geometry, "KEY COUNTER HOPS"),
        (LearnedHopping(), hop, "ENERGY ROW_ENERGY TEMPERATURE BEST LOWEST UNIT SINCE CALLS CHOICE"),
    ],
    ids=["lbfgs", "fire", "basin-hopping", "moves", "learned-hopping"],
)
def test_offsets_are_those_of_the_state(optimizer: Optimizer, module: ModuleType, names: str) -> None:
    _, state = begun(optimizer)
    for name in names.split():
        name, _, given = name.partition("=")
        assert offsets(state, name.lower()) == (int(given) if given else getattr(module, name)), name


def test_the_quench_begins_behind_the_search() -> None:
    landscape, state = begun(BasinHopping())
    (bucket,) = buckets_of(landscape.segments)
    whole, inner = (pack(one, bucket, landscape.systems.pos) for one in (state, state.inner))  # type: ignore[attr-defined]
    before = [
        (a.shape[1] - b.shape[1]) // size
        for a, b, size in (
            (whole.rows, inner.rows, N),
            (whole.numbers, inner.numbers, 1),
            (whole.counts, inner.counts, 1),
        )
    ]
    assert before == [basin_hopping.INNER_ROWS, basin_hopping.INNER_NUMBERS, basin_hopping.INNER_COUNTS]

"""The base of searches that quench to one minimum after another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import field_validator

from mlopt.core.landscapes.evaluation import Evaluation
from mlopt.core.landscapes.landscape import Landscape
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import FromRegistry, setting
from mlopt.core.protocols.optimizer import Found, Optimizer, State, local_only, nested, per_problem, per_row
from mlopt.optimizers.local.lbfgs import LBFGS


@dataclass(frozen=True)
class QuenchingState(State):
    """The quench, the current minimum of each problem, and the minima at which the last step arrived.

    inner: state of the quench.
    key, counter (n,) int64: random numbers.
    x (n_rows, d), energy (n,): the current minimum; its energy is infinite before the first.
    arrived (n,) bool: whether the last step ended a quench.
    found_energy (n,), found_x (n_rows, d): the point where that quench ended.
    """

    inner: Any = nested()
    key: torch.Tensor = per_problem()
    counter: torch.Tensor = per_problem()
    x: torch.Tensor = per_row()
    energy: torch.Tensor = per_problem()
    arrived: torch.Tensor = per_problem()
    found_energy: torch.Tensor = per_problem()
    found_x: torch.Tensor = per_row()


class Quenching(Optimizer):
    """Base of searches that quench with a local optimizer. Its state is a `QuenchingState`."""

    searching: ClassVar[bool] = True
    recovers: ClassVar[bool] = True

    quench: Annotated[Optimizer, FromRegistry("optimizer")] = setting(
        LBFGS(), "local optimizer of the quenches"
    )
    quench_tolerance: float = setting(
        1e-2,
        "root mean square force component below which a quench ends",
        unit="energy/length",
        ge=0,
    )
    quench_calls: int = setting(1000, "force calls after which a quench ends at the latest", ge=1)

    @field_validator("quench")
    @classmethod
    def _local(cls, quench: Optimizer) -> Optimizer:
        return local_only(quench)

    def begun(self, landscape: Landscape, x: torch.Tensor, key: torch.Tensor) -> dict[str, Any]:
        """Return the fields of `QuenchingState` before the first quench, from ``x (n_rows, d)``."""
        n = landscape.segments.n_problems
        integers = torch.zeros(n, dtype=torch.int64, device=x.device)
        infinite = x.new_full((n,), torch.inf)
        return {
            "inner": self.quench.init(landscape, x, key),
            "key": key,
            "counter": integers,
            "x": x,
            "energy": infinite,
            "arrived": integers.bool(),
            "found_energy": infinite,
            "found_x": x,
        }

    def found(self, state: Any) -> Found:
        """Return the minima at which quenches ended in the last step."""
        return Found(state.arrived, state.found_energy, state.found_x)


def mean_squares(landscape: Landscape, evaluation: Evaluation) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean squared force components (n,), and the problems (n,) bool where these and the energy are finite."""
    segments, force = landscape.segments, evaluation.force
    mean2 = segments.dot(force, force) / (segments.counts * force.shape[1])
    return mean2, torch.isfinite(evaluation.energy + mean2)

"""Classics whose constants are learned: Adam, FIRE and basin hopping as functions of a vector without constraints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import field_validator

from mlopt.core.errors import InputError
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import FromRegistry, setting
from mlopt.core.protocols.learning import Learnable
from mlopt.core.protocols.optimizer import Optimizer
from mlopt.optimizers.local.adam import Adam
from mlopt.optimizers.local.fire import Fire
from mlopt.optimizers.moves.basic import Displacement
from mlopt.optimizers.searches.basin_hopping import BasinHopping


@dataclass(frozen=True)
class Constant:
    """A setting as a number without constraints.

    name: the name in `Classic.named`.
    forward: a function from the setting to that number.
    inverse: the inverse function, which is differentiable.
    """

    name: str
    forward: Callable[[float], float]
    inverse: Callable[[torch.Tensor], torch.Tensor]


def positive(name: str) -> Constant:
    """Return a positive constant, which is represented by its logarithm."""
    return Constant(
        name, lambda value: float(torch.tensor(value, dtype=torch.float64).log()), lambda t: t.exp()
    )


def share(name: str) -> Constant:
    """Return a constant between 0 and 1, which is represented by its logit."""
    return Constant(
        name, lambda value: float(torch.tensor(value, dtype=torch.float64).logit()), torch.sigmoid
    )


def above_one(name: str) -> Constant:
    """Return a constant above 1, which is represented by the logarithm of its excess over 1."""
    return Constant(
        name,
        lambda value: float(torch.tensor(value - 1.0, dtype=torch.float64).log()),
        lambda t: 1.0 + t.exp(),
    )


class Classic(Learnable):
    """An optimizer whose constants are learned, beginning with those of ``base`` (Learn2Hop, appendix C.1 and C.2).

    | base | theta |
    |---|---|
    | adam | step_size, beta1, beta2, epsilon: "Adam4p" of Metz et al. 2019 |
    | fire | dt, dt_max / dt, alpha, grow, cut, fade, and max_step if there is one |
    | basin-hopping | temperature, the step of the first displacement, quench_tolerance, quench_calls |

    In theta, positive constants are represented by their logarithm, and shares by their logit. Factors above 1 are
    represented by the logarithm of their excess over 1. The setting quench_calls becomes a real number: a quench ends
    with the first call that reaches it.

    Raises:
        InputError: (`optimizer`, `named`) theta has another length, or is not finite.
    """

    base: Annotated[Optimizer, FromRegistry("optimizer")] = setting(
        Adam(), "adam, fire or basin-hopping, with the initial constants"
    )

    @field_validator("base")
    @classmethod
    def _known(cls, base: Optimizer) -> Optimizer:
        try:
            values = _values(base)
        except InputError as error:
            raise ValueError(str(error)) from None
        for constant, value in values:
            if not torch.isfinite(torch.tensor(constant.forward(value))):
                raise ValueError(
                    f"{constant.name} is {value}, at the edge of what it may be: nothing is learned there"
                )
        return base

    def start(self, seed: int = 0) -> torch.Tensor:
        """Return the constants of ``base``, (p,) float64, whatever the seed."""
        return torch.tensor(
            [constant.forward(value) for constant, value in _values(self.base)], dtype=torch.float64
        )

    def optimizer(self, theta: torch.Tensor) -> Optimizer:
        """Return ``base`` with constants that are tensors, 0-d or (n_problems,), through which gradients flow."""
        given = self._given(theta)
        base = self.base
        if isinstance(base, Fire):
            given["dt_max"] = given["dt"] * given.pop("dt_max / dt")
        if isinstance(base, BasinHopping):
            step, moves, place = given.pop("step"), list(base.moves), _displacement(base)
            moves[place] = moves[place].replace(step=step)
            given["moves"] = moves
        return base.replace(**given)

    def named(self, theta: torch.Tensor) -> dict[str, float]:
        """Return the constants of ``theta (p,)``, in their units."""
        return {name: float(value) for name, value in self._given(theta).items()}

    def _given(self, theta: torch.Tensor) -> dict[str, Any]:
        constants = [constant for constant, _ in _values(self.base)]
        if theta.shape[-1] != len(constants):
            raise InputError(
                f"{type(self.base).__name__} has {len(constants)} constants ("
                f"{', '.join(one.name for one in constants)}), but theta has {theta.shape[-1]} numbers"
            )
        if not bool(torch.isfinite(theta).all()):
            raise InputError(f"theta of {type(self.base).__name__} is not finite: the training has failed")
        return {one.name: one.inverse(part) for one, part in zip(constants, theta.unbind(-1), strict=True)}


def _values(base: Optimizer) -> list[tuple[Constant, float]]:
    """Return the constants of an optimizer that are learned, with their present values."""
    if isinstance(base, Adam):
        return [
            (positive("step_size"), base.step_size),
            (share("beta1"), base.beta1),
            (share("beta2"), base.beta2),
            (positive("epsilon"), base.epsilon),
        ]
    if isinstance(base, Fire):
        found = [
            (positive("dt"), base.dt),
            (above_one("dt_max / dt"), base.dt_max / base.dt),
            (share("alpha"), base._alpha),
            (above_one("grow"), base.grow),
            (share("cut"), base.cut),
            (share("fade"), base.fade),
        ]
        return found if base.max_step is None else [*found, (positive("max_step"), base.max_step)]
    if type(base) is BasinHopping:
        move = base.moves[_displacement(base)]
        assert isinstance(move, Displacement)
        return [
            (positive("temperature"), base.temperature),
            (positive("step"), move.step),
            (positive("quench_tolerance"), base.quench_tolerance),
            (positive("quench_calls"), float(base.quench_calls)),
        ]
    raise InputError(
        f"the constants of {type(base).__name__} are not learned; adam, fire and basin-hopping have some"
    )


def _displacement(base: BasinHopping) -> int:
    """Return the place of the first displacement among the moves."""
    for place, move in enumerate(base.moves):
        if isinstance(move, Displacement):
            return place
    raise InputError("basin-hopping without a move `displacement` has no step to learn")

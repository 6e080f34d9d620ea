"""The learned optimizer of Learn2Hop: a small network makes the step of each component."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import model_validator

from mlopt.core.errors import InputError
from mlopt.core.files.weights import (
    Weights,
    check_trained,
    load_weights,
    read_card,
    save_weights,
    shipped,
    with_card,
)
from mlopt.core.kernels.kernel import Kernel, NoKernelError, OptimizerKernel
from mlopt.core.landscapes.evaluation import Evaluation
from mlopt.core.landscapes.landscape import Landscape
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import setting
from mlopt.core.protocols.learning import Learnable
from mlopt.core.protocols.optimizer import Optimizer, State, per_problem, per_row
from mlopt.core.quoting import quoted
from mlopt.optimizers.learned.kernels import network as network_kernels
from mlopt.optimizers.learned.kernels import step as kernels
from mlopt.optimizers.learned.step import equivariant
from mlopt.optimizers.learned.step.inputs import Inputs, Seen
from mlopt.optimizers.learned.step.network import ALPHA, Architecture, by_component

#: radial functions by a series up to this cutoff: see `mlopt.optimizers.learned.kernels.radial`
_SHORT = 2.6


@dataclass(frozen=True)
class LearnedState(State):
    """The moments, for each of k decays, with lengths in diameters.

    mean, square (k, n_rows, d): running means of force and squared force. In an equivariant optimizer ``square`` is
    (k, n_rows, 1), of the squared length of the force.
    power (n_problems, k): decays to the power of the number of steps.
    age (n_problems,) int64: number of steps.
    """

    mean: torch.Tensor = per_row(axis=1)
    square: torch.Tensor = per_row(axis=1)
    power: torch.Tensor = per_problem()
    age: torch.Tensor = per_problem()


class Learned(Inputs, Optimizer):
    """A network with two hidden layers, one for all components, that makes steps ``alpha d sigmoid(beta m + gamma)``.

    Here d and m are the network's outputs, and alpha, beta and gamma are learned with it. Source: Merchant, Metz,
    Schoenholz & Cubuk, Learn2Hop, ICML 2021, section 3.1, eq. 2, appendix D.3. `Inputs` lists differences in the
    inputs. There are two more:

    - The paper does not name the activation of the hidden layers. Here it is that of the optimizer it builds on (Metz
      et al. 2019, rectified linear units), or tanh.
    - theta holds alpha over 0.1. Noise on theta of 0.1, as in the paper, would otherwise change the sign of every fifth
      alpha.

    ``weights`` is the name of weights that ship, or a file (see `mlopt.core.files.weights`). They bring the settings of
    their inputs; settings that are given must be the same. From Python ``theta`` can be given instead, (p,) float64, or
    (n_problems, p) with one network a problem (see `LearnedFamily`).

    Steps of the component-wise network depend on the axes. With ``equivariant`` the network sees lengths and angles of
    vectors and mixes the vectors (see `mlopt.optimizers.learned.step.equivariant`).

    On a curved manifold means are carried along by parallel transport, and the step is projected. Fixed rows stay. The
    optimizer does not settle, so the lowest point of a run counts. It works on any landscape. It has a kernel for the
    fused engine without ``messages`` and ``equivariant``.

    Raises (from `init`):
        InputError: theta does not fit the inputs or the problems, or is not finite. An element is not among
            ``species``. The landscape has none of the inputs by which components differ.
    """

    wanders: ClassVar[bool] = True

    weights: Weights | None = setting(None, "name of weights that ship, or a file of weights")
    theta: Any = setting(None, "the parameters, set from Python in place of `weights`")

    @model_validator(mode="before")
    @classmethod
    def _of_card(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        if values.get("theta") is not None:
            if values.get("weights") is not None:
                raise ValueError("give `weights` or `theta`, not both")
            if isinstance(values["theta"], list):
                values = values | {"theta": torch.tensor(values["theta"], dtype=torch.float64)}
            return values
        if not isinstance(values.get("weights"), str):
            names = ", ".join(shipped("learned")) or "none"
            raise ValueError(f"`weights` is missing: a name (these ship: {names}) or a file of `meta-train`")
        return with_card(values, "learned")

    @model_validator(mode="after")
    def _as_trained(self) -> Self:
        _check_trained(self, self.weights)
        return self

    @cached_property
    def architecture(self) -> Architecture:
        """The sizes of the network, and of all parts of theta."""
        return Architecture.of(self, *(equivariant.sizes(self) if self.equivariant else ()))

    @cached_property
    def parameters(self) -> torch.Tensor:
        """Theta, (p,) or (n_problems, p) float64: the setting, or the content of the file of `weights`."""
        if self.theta is not None:
            return self.theta  # type: ignore[no-any-return]
        theta = load_weights(str(self.weights), "learned")
        self.architecture.check(theta, f"weights {quoted(self.weights)}")
        return theta

    def config(self) -> dict[str, Any]:
        """See `Plugin.config`; theta is a list, if there is one."""
        found = super().config()
        if self.theta is None:
            del found["theta"]
        else:
            found["theta"] = self.theta.tolist()
        return found

    def select(self, problems: torch.Tensor) -> Self:
        """See `Optimizer.select`."""
        if isinstance(self.theta, torch.Tensor) and self.theta.ndim == 2:
            return self.replace(theta=self.theta[problems])
        return self

    def init(self, landscape: Landscape, x: torch.Tensor, key: torch.Tensor) -> LearnedState:
        """Return zero moments."""
        n, k = landscape.segments.n_problems, len(self.decays)
        self.architecture.check(self.parameters, "learned", n)
        present = self.present(landscape)
        if not self.equivariant and not any(group.level == "component" for group in present):
            raise InputError(
                f"learned: {type(landscape).__name__} has none of the inputs by which components differ; "
                f"switch on gradient, moments or adam"
            )
        mean = x.new_zeros(k, *x.shape)
        square = mean[..., :1] if self.equivariant else mean
        ones = x.new_ones(n, k)
        return LearnedState(mean, square, ones, torch.zeros(n, dtype=torch.int64, device=x.device))

    def step(
        self, landscape: Landscape, x: torch.Tensor, evaluation: Evaluation, state: LearnedState
    ) -> tuple[torch.Tensor, LearnedState]:
        """Update the moments, compute inputs and network, and move."""
        segments, manifold = landscape.segments, landscape.manifold
        unit: torch.Tensor | float = 1.0
        if landscape.diameter is not None:
            unit = landscape.diameter.to(x)[:, None]
        force = (evaluation.force * unit).contiguous()
        decays = x.new_tensor(self.decays)
        square2 = force * force
        if self.equivariant:
            square2 = square2.sum(-1, keepdim=True)
        spread = decays[:, None, None]
        mean = force + spread * (state.mean - force)
        square = square2 + spread * (state.square - square2)
        power = state.power * decays
        seen = Seen(force, x, unit, mean, square, power, state.age)
        parts = self.architecture.split(self.parameters, x)
        if self.equivariant:
            move = equivariant.by_vector(self, parts, landscape, seen)
        else:
            groups = self.present(landscape)
            columns = self.inputs(groups, landscape, seen, parts.messages)
            move = by_component(self, parts, groups, columns, segments, x)
        move = manifold.project(x, move * unit)
        if landscape.fixed is not None:
            move = move.masked_fill(landscape.fixed[:, None], 0.0)
        new_x = manifold.retract(x, move)
        return new_x, LearnedState(manifold.transport(x, new_x, mean), square, power, state.age + 1)

    def kernel(self) -> OptimizerKernel:
        """See `Optimizer.kernel`."""
        if self.equivariant or self.messages:
            what = "`equivariant`" if self.equivariant else "`messages`"
            raise NoKernelError(f"the learned optimizer offers no kernel with {what}")
        numbers, constants = _for_kernel(self)
        span = constants.pop("SPAN")
        return OptimizerKernel(
            Kernel(kernels.init, (), constants),
            Kernel(kernels.step, (self.cutoff,), constants, theta=numbers),
            reals=lambda n: span + 6 * n,
        )


def _check_trained(inputs: Inputs, weights: str | None) -> None:
    """Refuse inputs that ``weights`` were not trained with. Other species are accepted, if they are as many.

    Raises:
        ValueError: names the setting.
    """
    if weights is None:
        return
    card = read_card(weights, "learned")
    check_trained(card, weights, inputs.settings(), free=("species",))
    ours, theirs = inputs.species or [], card.settings.get("species") or []
    if len(ours) != len(theirs):
        raise ValueError(
            f"weights {quoted(weights)} tell {len(theirs)} species apart ({', '.join(theirs)}), and "
            f"{len(ours)} are given ({', '.join(ours)}); as many are needed"
        )


def _for_kernel(learned: Learned) -> tuple[torch.Tensor, dict[str, int]]:
    """Return theta, (p,) or (n_problems, p), in the order in which the kernel reads it, and the kernel's constants."""
    architecture, stride, h = learned.architecture, network_kernels.STRIDE, learned.hidden
    theta = learned.parameters
    architecture.check(theta, "learned")
    parts = architecture.split(theta, torch.zeros((), dtype=torch.float64, device=theta.device))
    b = len(parts.first)
    taken: dict[str, list[torch.Tensor]] = {"component": [], "row": [], "problem": []}
    at = 0
    for group in learned.groups:
        taken[group.level].append(parts.first[:, at : at + group.width])
        at += group.width
    filled = {level: sum(one.shape[1] for one in ones) for level, ones in taken.items()}
    for level in ("component", "row"):
        rest = -filled[level] % 4
        taken[level].append(parts.first.new_zeros(b, rest, h))
        filled[level] += rest

    def by_unit(level: str) -> torch.Tensor:
        return torch.cat(taken[level], 1).mT.reshape(b, -1)

    front = [float(one) for one in (*learned.decays, *(learned.numbers or ()))]
    pieces = [
        parts.first.new_tensor(front).expand(b, -1),
        parts.first_bias,
        *taken["problem"],
        by_unit("row"),
        by_unit("component"),
        parts.second.mT,
        parts.second_bias,
        parts.last.mT,
        parts.last_bias,
        parts.alpha,
        parts.beta,
        parts.gamma,
    ]
    numbers = torch.cat([one.reshape(b, -1) for one in pieces], 1)
    names = {group.name for group in learned.groups}
    kinds = len(learned.species or ())
    places = {
        "BASE": h,
        "CELL": 18,
        "OF_COMPONENTS": filled["component"] * stride,
        "OF_ROWS": filled["row"] * stride,
        "HIDDEN": h * stride,
        "SPACE": 4 * stride,
        "OUT": 2 * stride,
        "PLACE": 4 * stride,
        "PHI": 8 * max(1, kinds) * stride,
        "STANDING": 0,
    }
    constants, place = dict[str, int](), 0
    for name, size in places.items():
        constants[name] = place
        place += size
    switches = ("gradient", "position", "moments", "adam", "number", "sines", "radial")
    return numbers if theta.ndim == 2 else numbers[0], constants | {
        **{name.upper(): int(name in names) for name in switches},
        "SPECIES": int("identity" in names),
        "KINDS": kinds,
        "DECAYS": len(learned.decays),
        "COMPONENTS": filled["component"],
        "ROWS": filled["row"],
        "NETWORK": len(front),
        "UNITS": h,
        "TANH": int(learned.activation == "tanh"),
        "SHORT": int(learned.cutoff <= _SHORT),
        "SPAN": place,
    }


class LearnedFamily(Inputs, Learnable):
    """The learned optimizers of given inputs. theta holds the weights of the network, alpha, beta and gamma."""

    weights: Weights | None = setting(
        None,
        "name of weights that ship, or a file, to start from; they bring their settings; none: random",
    )

    @model_validator(mode="before")
    @classmethod
    def _of_card(cls, values: Any) -> Any:
        return with_card(values, "learned")

    @model_validator(mode="after")
    def _as_trained(self) -> Self:
        _check_trained(self, self.weights)
        return self

    def start(self, seed: int = 0) -> torch.Tensor:
        """Return theta of the given weights, or a random one that moves nothing yet: see `Architecture.start`."""
        learned = self._learned(None)
        if self.weights is None:
            return learned.architecture.start(seed)
        theta = load_weights(self.weights, "learned")
        learned.architecture.check(theta, f"weights {quoted(self.weights)}")
        return theta

    def optimizer(self, theta: torch.Tensor) -> Learned:
        """See `Learnable.optimizer`.

        Raises:
            InputError: theta does not fit, or is not finite.
        """
        learned = self._learned(theta)
        learned.architecture.check(theta, "learned")
        return learned

    def named(self, theta: torch.Tensor) -> dict[str, float]:
        """Return alpha, beta and gamma."""
        learned = self._learned(theta)
        parts = learned.architecture.split(theta, theta)
        return {name: float(getattr(parts, name)) for name in ("alpha", "beta", "gamma")}

    def write_weights(self, theta: torch.Tensor, path: Path, training: Mapping[str, Any]) -> None:
        """Write a file for the setting `weights` of `Learned`, with its card."""
        save_weights(path, theta, "learned", self.settings(), training)

    def _learned(self, theta: torch.Tensor | None) -> Learned:
        settings = {name: getattr(self, name) for name in Inputs.model_fields}
        return Learned(theta=_NONE if theta is None else theta, **settings)


#: stands for a theta that nobody asks for
_NONE = object()
__all__ = ["ALPHA", "Learned", "LearnedFamily", "LearnedState"]

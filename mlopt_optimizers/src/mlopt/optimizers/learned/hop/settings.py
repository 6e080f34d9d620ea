"""The settings of a learned hop, and the source of its theta."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, Self

from pydantic import model_validator

from mlopt.core.files.weights import Weights, check_trained, load_weights, read_card, with_card
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import FromRegistry, setting
from mlopt.core.protocols.move import Move
from mlopt.optimizers.learned.hop.network import MessagePart, first_theta, size_of
from mlopt.optimizers.learned.messages import layer_of
from mlopt.optimizers.moves.basic import Exchange, Restart
from mlopt.optimizers.moves.cluster import Surface, Symmetrise, Twist
from mlopt.optimizers.searches.hopping import Hopping

_NAME = "learned-hopping"
#: where theta is not given, the share of the hops that each move has, and that of a restart; the rest displace
_RARE, _RAREST = 0.02, 0.001


class HopSettings(Hopping):
    """The settings and theta of `mlopt.optimizers.learned.hop.optimizer.LearnedHopping`."""

    weights: Weights | None = setting(
        None,
        "name of weights that ship, or a file of weights; none: those of `theta`, or the initial ones",
    )
    theta: list[float] | None = setting(None, "the parameters, in place of `weights`")
    moves: list[Annotated[Move, FromRegistry("move")]] = setting(
        [Symmetrise(), Surface(), Twist(), Exchange(), Restart()],
        "moves that the network chooses from, besides displacing; theta depends on their number and order",
        max_length=5,
    )
    messages: int = setting(
        0,
        "number of trained message-passing features of each atom's neighbourhood; 0: none; eager engine only",
        ge=0,
        le=64,
    )
    rounds: int = setting(1, "number of message-passing rounds", ge=1, le=4)
    cutoff: float = setting(2.5, "cutoff of the messages", unit="diameter", gt=0)
    horizon: int = setting(50_000, "number of force calls of which the network is given the used share", ge=1)
    container: float | None = setting(
        1.3,
        "radius to which distant rows are pulled back, in radii of a close-packed ball; none: no container",
        gt=0,
    )

    @model_validator(mode="before")
    @classmethod
    def _of_card(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and None not in (values.get("weights"), values.get("theta")):
            raise ValueError("give `weights` or `theta`, not both")
        return with_card(values, _NAME)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        card = None if self.weights is None else read_card(self.weights, _NAME)
        problem = self._wrong_with(self.theta) if card is None else self._misfit(card.parameters)
        if problem is not None:
            raise ValueError(problem)
        if card is not None and self.weights is not None:
            check_trained(card, self.weights, self.settings(), free=set(card.settings) - {"moves"})
        return self

    def settings(self) -> dict[str, Any]:
        """Return all settings but the weights as plain data, for the card of a training."""
        return {name: value for name, value in self.config().items() if name not in ("weights", "theta")}

    def _misfit(self, found: int) -> str | None:
        size, kinds = self.size, ", ".join(type(one).__name__ for one in self.moves)
        if found == size:
            return None
        heard = f" and {self.messages} messages" if self.messages else ""
        return (
            f"`theta` has {found} numbers, but a displacement and {len(self.moves)} moves ({kinds or 'none'}){heard} "
            f"need {size}; give the `moves` and `messages` it was trained with"
        )

    @cached_property
    def message_part(self) -> MessagePart | None:
        """The part of theta that belongs to messages, if there are any."""
        if not self.messages:
            return None
        return MessagePart(layer_of(self.messages, rounds=self.rounds, cutoff=self.cutoff), self.messages)

    @property
    def size(self) -> int:
        """The length of theta."""
        return size_of(1 + len(self.moves)) + (self.message_part.size if self.message_part else 0)

    @property
    def hop_parameters(self) -> torch.Tensor:
        """Theta without what messages add."""
        return self.parameters[..., : size_of(1 + len(self.moves))]

    def first_theta(self, shares: Sequence[float], seed: int = 0) -> torch.Tensor:
        """Return the theta (p,) float64 where training starts, with these shares of the moves."""
        core = first_theta(shares, seed)
        return core if self.message_part is None else torch.cat([core, self.message_part.start(seed)])

    def _wrong_with(self, theta: list[float] | torch.Tensor | None) -> str | None:
        if theta is None:
            return None
        problem = self._misfit(theta.shape[-1] if isinstance(theta, torch.Tensor) else len(theta))
        if problem is not None:
            return problem
        if not bool(torch.isfinite(torch.as_tensor(theta)).all()):
            return "`theta` holds numbers that are not finite; take it from a training that did not diverge"
        return None

    @cached_property
    def parameters(self) -> torch.Tensor:
        """Theta, (p,) or (n_problems, p) float64: the setting, what the file of `weights` holds, or the start."""
        if self.weights is not None and self.theta is None:
            return load_weights(self.weights, _NAME)
        if self.theta is None:
            rare = [_RAREST if isinstance(one, Restart) else _RARE for one in self.moves]
            return self.first_theta([1.0 - sum(rare), *rare])
        return torch.as_tensor(self.theta, dtype=torch.float64)

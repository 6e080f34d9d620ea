"""The common base of fitted potentials: species, parameters, and files of weights that bring both."""

from __future__ import annotations

import functools
from abc import abstractmethod
from typing import Any, ClassVar, Self

from pydantic import model_validator

from mlopt.core.atoms.elements import NUMBERS
from mlopt.core.errors import InputError
from mlopt.core.files.weights import Weights, check_trained, load_weights, read_card, save_weights, with_card
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import setting
from mlopt.core.protocols.fittable import FittablePotential
from mlopt.potentials.fitted.species import Elements


class StoredPotential(FittablePotential):
    """The base of fitted potentials that know their species, and that files of weights keep.

    The file given as ``weights`` brings the settings on its card with it. Settings that are given besides must agree
    with the card.
    """

    #: the registered name: files of weights belong to it
    registered: ClassVar[str]

    elements: Elements | None = setting(None, "the species; none: those of the data")
    weights: Weights | None = setting(None, "a fitted potential: a file, whose card brings the settings")

    @model_validator(mode="before")
    @classmethod
    def _of_card(cls, values: Any) -> Any:
        return with_card(values, cls.registered)

    @model_validator(mode="after")
    def _as_fitted(self) -> Self:
        if self.weights is not None:
            check_trained(read_card(self.weights, self.registered), self.weights, self.config())
        return self

    @property
    @abstractmethod
    def n_parameters(self) -> int:
        """Length of theta, as the settings want it."""
        raise NotImplementedError(f"{type(self).__name__} must define `n_parameters`")

    @property
    def parameters(self) -> torch.Tensor:
        """See `FittablePotential.parameters`."""
        if self.theta is not None:
            return self.theta  # type: ignore[no-any-return]
        return self._fitted

    @functools.cached_property
    def _fitted(self) -> torch.Tensor:
        """The parameters of the file of weights, or those of a potential that is not fitted.

        Raises:
            InputError: the file has another number of parameters.
        """
        if self.weights is None:
            return self._unfitted()
        theta = load_weights(self.weights, self.registered)
        if len(theta) != self.n_parameters:
            raise InputError(
                f"weights {self.weights}: {len(theta)} parameters, and {self.giver} has {self.n_parameters} with these "
                f"settings: they were fitted with another version of mlopt; fit anew"
            )
        return theta

    def _unfitted(self) -> torch.Tensor:
        """Return the initial parameters (p,), for a potential without ``theta`` and ``weights``."""
        return self.start()

    @property
    def numbers(self) -> tuple[int, ...]:
        """Atomic numbers of the species, in their order.

        Raises:
            InputError: neither settings nor weights name the species.
        """
        if not self.elements:
            raise InputError(
                f"{self.registered}: nothing says which species there are; fit the potential to data, or give "
                f"`elements`"
            )
        return tuple(NUMBERS[one] for one in self.elements)

    def species(self) -> set[int] | None:
        """See `Potential.species`."""
        return None if self.elements is None else set(self.numbers)

    def save(self, path: str, training: dict[str, Any]) -> None:
        """See `FittablePotential.save`."""
        settings = {name: one for name, one in self.config().items() if name not in ("weights", "theta")}
        save_weights(path, self.parameters, self.registered, settings, training)

"""The protocol of optimizers: hyper-parameters and two pure functions.

``init(landscape, x, key) -> state`` and ``step(landscape, x, evaluation, state) -> (x, state)``. An optimizer reads the
landscape's geometry (segments, manifold) and never evaluates the landscape. The driver does that, once a step, so force
calls are counted exactly. Searches that hop between minima are optimizers too; `found` returns their minima.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import Field, dataclass, field, fields, replace
from typing import Any, ClassVar, Self

from mlopt.core.batch.segments import Segments
from mlopt.core.kernels.kernel import NoKernelError, OptimizerKernel
from mlopt.core.landscapes.evaluation import Evaluation
from mlopt.core.landscapes.landscape import Landscape
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import Plugin


def per_row(axis: int = 0) -> Any:
    """Declare a state tensor whose dimension ``axis`` runs over rows."""
    return field(metadata={"kind": "row", "axis": axis})


def per_problem(padded: bool = False) -> Any:
    """Declare a state tensor whose first dimension runs over problems.

    padded: True where the other dimensions are as long as the largest problem of a batch needs. A smaller problem has
        zeros in the places that it does not need. States of unlike batches then fit together.
    """
    return field(metadata={"kind": "problem", "axis": 0, "padded": padded})


def nested() -> Any:
    """Declare a state within a state (a wrapper's inner optimizer)."""
    return field(metadata={"kind": "state"})


@dataclass(frozen=True)
class State:
    """The part of an optimizer that changes from step to step: a frozen dataclass of tensors.

    Every field is declared by `per_row`, `per_problem` or `nested`. This suffices to reset any state for some problems,
    to cut it down to some, and to save and load it, for any optimizer.
    """

    def where(self, mask: torch.Tensor, other: Self, segments: Segments) -> Self:
        """Return this state where ``mask (n_problems,)`` is true, ``other`` elsewhere."""
        rows = segments.rows_of(mask)
        mixed: dict[str, Any] = {}
        for one in fields(self):
            mine, theirs = getattr(self, one.name), getattr(other, one.name)
            if one.metadata["kind"] == "state":
                mixed[one.name] = mine.where(mask, theirs, segments)
            else:
                mine, theirs = _alike(one, mine, theirs)
                chosen = rows if one.metadata["kind"] == "row" else mask
                trailing = mine.ndim - one.metadata["axis"] - 1
                mixed[one.name] = torch.where(chosen.reshape(-1, *[1] * trailing), mine, theirs)
        return replace(self, **mixed)

    def put(self, problems: torch.Tensor, rows: torch.Tensor, part: Self) -> Self:
        """Return this state with ``part`` written over the given problems (k,) and their rows (int64 indices)."""
        mixed: dict[str, Any] = {}
        for one in fields(self):
            mine, new = getattr(self, one.name), getattr(part, one.name)
            if one.metadata["kind"] == "state":
                mixed[one.name] = mine.put(problems, rows, new)
            else:
                mine, new = _alike(one, mine, new)
                index = rows if one.metadata["kind"] == "row" else problems
                mixed[one.name] = mine.index_copy(one.metadata["axis"], index, new)
        return replace(self, **mixed)

    def select(self, problems: torch.Tensor, rows: torch.Tensor) -> Self:
        """Keep some problems (k,) and the rows that they own (int64 indices)."""
        kept: dict[str, Any] = {}
        for one in fields(self):
            value = getattr(self, one.name)
            if one.metadata["kind"] == "state":
                kept[one.name] = value.select(problems, rows)
            else:
                index = rows if one.metadata["kind"] == "row" else problems
                kept[one.name] = value.index_select(one.metadata["axis"], index)
        return replace(self, **kept)

    def tensors(self, prefix: str = "") -> dict[str, torch.Tensor]:
        """Return the tensors by flat names, for a checkpoint."""
        flat: dict[str, torch.Tensor] = {}
        for one in fields(self):
            value = getattr(self, one.name)
            if one.metadata["kind"] == "state":
                flat |= value.tensors(f"{prefix}{one.name}.")
            else:
                flat[prefix + one.name] = value
        return flat

    def with_tensors(self, flat: dict[str, torch.Tensor], prefix: str = "") -> Self:
        """Return a state of the same structure with the tensors that `tensors` returned.

        Raises:
            KeyError: a tensor is missing.
        """
        loaded: dict[str, Any] = {}
        for one in fields(self):
            value = getattr(self, one.name)
            if one.metadata["kind"] == "state":
                loaded[one.name] = value.with_tensors(flat, f"{prefix}{one.name}.")
            else:
                loaded[one.name] = flat[prefix + one.name].to(value.device)
        return replace(self, **loaded)


def _alike(declared: Field[Any], a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both tensors of a field, with zeros to the longer of each padded dimension."""
    if not declared.metadata.get("padded") or a.shape[1:] == b.shape[1:]:
        return a, b
    most = [max(pair) for pair in zip(a.shape[1:], b.shape[1:], strict=True)]
    padded = []
    for one in (a, b):
        missing = [more - length for length, more in zip(one.shape[1:], most, strict=True)]
        padded.append(torch.nn.functional.pad(one, [n for more in reversed(missing) for n in (0, more)]))
    return padded[0], padded[1]


def _cut_settings(plugin: Any, problems: torch.Tensor) -> Any:
    """Return a plugin for some of the problems; the plugin itself if no setting in it, at any depth, is a tensor."""
    changed = {}
    for name in type(plugin).model_fields:
        value = getattr(plugin, name)
        part = _cut(value, problems)
        if part is not value:
            changed[name] = part
    return plugin.replace(**changed) if changed else plugin


def _cut(value: Any, problems: torch.Tensor) -> Any:
    if isinstance(value, Optimizer):
        return value.select(problems)
    if isinstance(value, Plugin):
        return _cut_settings(value, problems)
    if isinstance(value, torch.Tensor):
        return value[problems] if value.ndim else value
    if isinstance(value, list) and any(isinstance(one, Plugin) for one in value):
        parts = [_cut(one, problems) for one in value]
        return value if all(a is b for a, b in zip(parts, value, strict=True)) else parts
    return value


@dataclass(frozen=True)
class Found:
    """Local minima that a search has just reached.

    mask: (n_problems,) bool, problems that reached a minimum in the last step.
    energy: (n_problems,), x: (n_rows, d): the minimum, where ``mask`` is true.
    """

    mask: torch.Tensor
    energy: torch.Tensor
    x: torch.Tensor


class Optimizer(Plugin):
    """The base of all optimizers. Settings may be tensors, 0-d or (n_problems,), set through `replace`."""

    #: True for a search, which continues after a minimum: a force threshold does not end it
    searching: ClassVar[bool] = False
    #: True if it may climb again and again: the result of a run that no force ends is then the lowest point
    wanders: ClassVar[bool] = False
    #: True if `step` handles a non-finite evaluation by stepping back, for that problem alone; the driver then
    #: gives a problem up only after several in a row
    recovers: ClassVar[bool] = False
    #: the kind of point at which it ends: a "minimum", or a "saddle"; "nothing" for dynamics, which no force ends
    seeks: ClassVar[str] = "minimum"
    #: True if it minimises sums of squares alone, such as the loss of a fit, and so no energy of a system
    squares_only: ClassVar[bool] = False

    @abstractmethod
    def init(self, landscape: Landscape, x: torch.Tensor, key: torch.Tensor) -> State:
        """Return the state before the first step at ``x (n_rows, d)``.

        key: (n_problems,) int64, seeds the random numbers of each problem.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `init`")

    @abstractmethod
    def step(
        self, landscape: Landscape, x: torch.Tensor, evaluation: Evaluation, state: Any
    ) -> tuple[torch.Tensor, Any]:
        """Return the next point (n_rows, d) and state, given the evaluation at ``x``. Pure: changes no argument."""
        raise NotImplementedError(f"{type(self).__name__} must define `step`")

    def select(self, problems: torch.Tensor) -> Self:
        """Return this optimizer for some problems (k,) int64; settings with one number per problem are cut down."""
        made: Self = _cut_settings(self, problems)
        return made

    def tolerating(self, rise: float) -> Optimizer:
        """Return this optimizer with a tolerance for noise in the energy.

        rise: the largest increase, relative to 1 + |energy|, that counts as noise.
        The method is for potentials that repeat an energy only to that precision. An optimizer that compares energies
        overrides it.
        """
        return self

    def kernel(self) -> OptimizerKernel:
        """Return this optimizer for the fused engine.

        Raises:
            NoKernelError: the optimizer has no kernel, or none for these settings.
        """
        raise NoKernelError(f"the optimizer {type(self).__name__} offers no kernel")

    def found(self, state: Any) -> Found | None:
        """Return the minima that the last step reached; None for optimizers that do not search."""
        return None


def energies_only(optimizer: Optimizer) -> Optimizer:
    """Return the optimizer if it takes any energy, not sums of squares alone.

    Raises:
        ValueError: it takes nothing else.
    """
    if optimizer.squares_only:
        raise ValueError(
            f"{type(optimizer).__name__} minimises sums of squares, and the energy of a system is none: it trains "
            f"potentials, in `training.stages` of a fit. Take lbfgs or bfgs here"
        )
    return optimizer


def local_only(optimizer: Optimizer) -> Optimizer:
    """Return the optimizer if it ends at a minimum of an energy.

    Raises:
        ValueError: a search or dynamics, which never end at a minimum, or a method that ends at a saddle; or as
            `energies_only`.
    """
    energies_only(optimizer)
    if optimizer.searching:
        raise ValueError(
            f"{type(optimizer).__name__} is a search, which does not end at a minimum; "
            f"take a local optimizer such as lbfgs or fire"
        )
    if optimizer.seeks == "nothing":
        raise ValueError(
            f"{type(optimizer).__name__} follows dynamics and ends at no minimum; take lbfgs or fire"
        )
    if optimizer.seeks != "minimum":
        raise ValueError(
            f"{type(optimizer).__name__} ends at a {optimizer.seeks}, not at a minimum; take lbfgs or fire"
        )
    return optimizer

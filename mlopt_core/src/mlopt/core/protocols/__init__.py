"""Protocols: what an optimizer, a move, a start, a model, a learner or a query strategy must offer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlopt.core.lazy import names_of

if TYPE_CHECKING:
    from mlopt.core.protocols.fittable import Design, FittablePotential
    from mlopt.core.protocols.labeller import Finished, Labeller
    from mlopt.core.protocols.learning import Learnable, MetaState, MetaTrainer, SegmentedTask, Task
    from mlopt.core.protocols.model import Model, ModelState
    from mlopt.core.protocols.move import Move
    from mlopt.core.protocols.optimizer import Found, Optimizer, State, nested, per_problem, per_row
    from mlopt.core.protocols.query import QueryStrategy, Selection
    from mlopt.core.protocols.start import StartSampler

__all__ = [
    "Design",
    "Finished",
    "FittablePotential",
    "Found",
    "Labeller",
    "Learnable",
    "MetaState",
    "MetaTrainer",
    "Model",
    "ModelState",
    "Move",
    "Optimizer",
    "QueryStrategy",
    "SegmentedTask",
    "Selection",
    "StartSampler",
    "State",
    "Task",
    "nested",
    "per_problem",
    "per_row",
]

__getattr__ = names_of(
    __name__,
    {
        "learning": ("Learnable", "MetaState", "MetaTrainer", "SegmentedTask", "Task"),
        "model": ("Model", "ModelState"),
        "move": ("Move",),
        "optimizer": ("Found", "Optimizer", "State", "nested", "per_problem", "per_row"),
        "fittable": ("Design", "FittablePotential"),
        "labeller": ("Finished", "Labeller"),
        "query": ("QueryStrategy", "Selection"),
        "start": ("StartSampler",),
    },
)

"""The driver: the loop that carries minimisations on, when they end, and what they return."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlopt.core.lazy import names_of

if TYPE_CHECKING:
    from mlopt.core.driver.driver import Driver, minimize, unroll
    from mlopt.core.driver.engine import Engine, EngineName, choose_engine
    from mlopt.core.driver.external import ExternalOptimizer, Meter
    from mlopt.core.driver.progress import Outcome, Progress
    from mlopt.core.driver.result import Result
    from mlopt.core.driver.stop import OnTarget, Reason, Stop

__all__ = [
    "Driver",
    "Engine",
    "EngineName",
    "ExternalOptimizer",
    "Meter",
    "OnTarget",
    "Outcome",
    "Progress",
    "Reason",
    "Result",
    "Stop",
    "choose_engine",
    "minimize",
    "unroll",
]

__getattr__ = names_of(
    __name__,
    {
        "driver": ("Driver", "minimize", "unroll"),
        "engine": ("Engine", "EngineName", "choose_engine"),
        "external": ("ExternalOptimizer", "Meter"),
        "progress": ("Outcome", "Progress"),
        "result": ("Result",),
        "stop": ("OnTarget", "Reason", "Stop"),
    },
)

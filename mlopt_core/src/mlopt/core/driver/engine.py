"""The protocol of engines: another way to carry a minimisation on, with the same meaning."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Literal

from mlopt.core.driver.progress import Progress
from mlopt.core.driver.stop import Stop
from mlopt.core.errors import InputError, PluginError
from mlopt.core.landscapes.landscape import Landscape
from mlopt.core.plugins import registry
from mlopt.core.plugins.plugin import Plugin
from mlopt.core.protocols.optimizer import Optimizer

EngineName = Literal["auto", "eager", "fused"]
#: `auto` takes the fused engine where the eager one would need about this many seconds: compiling takes some
_WORTH = 10.0


class Engine(Plugin):
    """Carries a `Progress` on in place of the driver's loop; both agree to rounding, step by step."""

    @abstractmethod
    def refusal(self, landscape: Landscape, optimizer: Optimizer) -> str | None:
        """Why this engine cannot run this pair, in one sentence that names the part at fault, or None if it can."""

    def prepare(
        self,
        landscape: Landscape,
        optimizer: Optimizer,
        progress: Progress,
        stop: Stop,
        leave: Callable[[], bool],
        announce: Callable[[str], None],
    ) -> float:
        """Do what has to be done before `advance` can take steps, such as compiling; returns the seconds that took.

        leave: asked again and again meanwhile; if true, give up at once.
        """
        return 0.0

    @abstractmethod
    def advance(
        self,
        landscape: Landscape,
        optimizer: Optimizer,
        progress: Progress,
        stop: Stop,
        pause: Callable[[], bool] | None,
        until: int | None,
        announce: Callable[[str], None],
    ) -> Progress:
        """What `Driver.advance` does, for the active problems of ``progress``, whose ``landscape`` this is.

        until: greater than the force calls that ``progress`` has made, or None.
        """


def choose_engine(
    name: EngineName,
    landscape: Landscape,
    optimizer: Optimizer,
    force_calls: int,
    announce: Callable[[str], None] = lambda message: None,
) -> Engine | None:
    """The engine of that name; None is the driver's own loop, the eager one.

    ``auto`` is fused where potential, optimizer and device allow it and the eager engine would take more than about ten
    seconds; never on a GPU, where nobody has measured what pays.
    It depends on the configuration alone, so that a run does not change with what happens to be compiled.
    Where it would pay but cannot be had, ``announce`` is told why.

    Raises:
        InputError: ``fused``, and a part has no kernel: says which.
    """
    if name == "eager":
        return None
    segments = landscape.segments
    if name == "auto" and segments.ptr.device.type != "cpu":
        return None
    if name == "auto" and force_calls * (4e-4 + 2e-6 * segments.n_rows) < _WORTH:
        return None
    try:
        engine: Engine = registry.load("engine", "fused")()
        reason = engine.refusal(landscape, optimizer)
    except PluginError as error:
        engine, reason = None, str(error)  # type: ignore[assignment]
    if reason is None:
        return engine
    if name == "auto":
        announce(f"engine: eager, because {reason}")
        return None
    raise InputError(
        f"`engine: fused` cannot run this: {reason} `engine: auto` takes the eager engine instead."
    )

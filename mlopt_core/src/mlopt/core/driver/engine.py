"""The protocol of engines, which carry a minimisation on in place of the driver's loop."""

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
    """A replacement of the driver's loop. Both agree to rounding, step by step."""

    @abstractmethod
    def refusal(self, landscape: Landscape, optimizer: Optimizer) -> str | None:
        """Return None if this engine can run this pair, else one sentence that names the part at fault."""

    def prepare(
        self,
        landscape: Landscape,
        optimizer: Optimizer,
        progress: Progress,
        stop: Stop,
        leave: Callable[[], bool],
        announce: Callable[[str], None],
    ) -> float:
        """Prepare `advance`, for example by compiling, and return the seconds that took.

        leave: called again and again meanwhile; true means to give up at once.
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
        """Carry the active problems of ``progress`` on, as `Driver.advance` does.

        landscape, optimizer: of the active problems alone.
        until: None, or a number of force calls that is greater than ``progress`` has made.
        """


def choose_engine(
    name: EngineName,
    landscape: Landscape,
    optimizer: Optimizer,
    force_calls: int,
    announce: Callable[[str], None] = lambda message: None,
) -> Engine | None:
    """Return the engine of that name; None stands for the driver's own loop, the eager engine.

    ``auto`` takes the fused engine where potential, optimizer and device allow it, and the eager engine would need more
    than about ten seconds. On a GPU it takes the eager engine, because nobody has measured what pays there.
    The choice depends on the configuration alone, not on which kernels happen to be compiled.

    announce: a function that receives the reason where the fused engine would save time but cannot be used.

    Raises:
        InputError: ``fused`` was asked for, and a part, which is named, has no kernel.
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

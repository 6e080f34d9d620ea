"""The two ends of a path: read, relaxed, aligned, and refused if no path can join them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from mlopt.core.batch.random import problem_keys
from mlopt.core.driver.driver import Driver
from mlopt.core.driver.progress import Progress
from mlopt.core.driver.stop import Stop
from mlopt.core.errors import InputError
from mlopt.core.landscapes.landscape import Landscape
from mlopt.core.lazy import torch
from mlopt.core.protocols.model import Aligned, Model
from mlopt.optimizers.bands.checks import check_fixed
from mlopt.optimizers.bands.settings import Ends
from mlopt.optimizers.local.lbfgs import LBFGS
from mlopt.optimizers.saddles.connect import Same

#: ends with a given order of atoms are one minimum if no row is farther off than this
_ONE_POINT = 1e-3
#: a mirror image is worth a hint if the path to it is shorter than this share
_NEARER = 0.9


@dataclass(frozen=True)
class Route:
    """Key images and the final state (each (n_rows, d)), and a description of their alignment."""

    keys: list[torch.Tensor]
    end: torch.Tensor
    words: str = ""


@dataclass(frozen=True)
class PathEnds:
    """The ends of a path, from a configuration.

    initial, final, keys: states of ``model``; the path passes through the keys.
    settings: for relaxing and aligning the ends.
    free: True if order and position of a state may be changed; False for a path from a file.
    fmax: largest force at an end that counts as a minimum.
    """

    model: Model
    initial: dict[str, Any]
    final: dict[str, Any]
    keys: Sequence[dict[str, Any]]
    settings: Ends
    free: bool
    fmax: float
    device: str

    def read(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return both ends as given, each (n_rows, d).

        Raises:
            InputError: they do not fit the model, or fixed rows differ between the ends.
        """
        start, end = self._state(self.initial), self._state(self.final)
        rows = self.model.rows(len(start))
        check_fixed(self._landscape(1), start, end, rows, (self._named("initial"), self._named("final")))
        return start, end

    def refuse_slopes(self, start: torch.Tensor, end: torch.Tensor) -> None:
        """Refuse ends that are no minima.

        Raises:
            InputError: the force at an end exceeds `fmax`.
        """
        for name, x in (("initial", start), ("final", end)):
            size = torch.linalg.vector_norm(self._landscape(1).evaluate(x).force, dim=-1)
            if float(size.max()) > self.fmax:
                row = self.model.rows(len(x))[int(size.argmax())]
                raise InputError(
                    f"{self._named(name)} is not a minimum: the force on {row} is {float(size.max()):.3g}, above "
                    f"{self.fmax:.3g}. Leave out `ends: {{relax: false}}` to have both ends relaxed"
                )

    def relaxed(
        self, watch: Callable[[Progress, int, float], Callable[[], bool]]
    ) -> tuple[torch.Tensor, torch.Tensor, int]:
        """Return both ends relaxed, each (n_rows, d) on the CPU, and the number of evaluations.

        watch: returns a `pause` function, given the progress, the maximal number of evaluations and the force
            threshold.

        Raises:
            InputError: as in `read`; or an end does not relax.
        """
        start, end = self.read()
        if not self.settings.relax:
            return start.cpu(), end.cpu(), 0
        most = self.settings.evaluations
        driver = Driver(self._landscape(2), LBFGS(), Stop(most, self.fmax))
        keys = problem_keys(0, torch.arange(2, device=start.device))
        progress = driver.begin(torch.cat([start, end]), keys)
        driver.advance(progress, watch(progress, most, self.fmax))
        found = driver.result(progress)
        for k, name in enumerate(("initial", "final")):
            if not bool(found.converged[k]):
                raise InputError(
                    f"{self._named(name)} did not relax to a force of {self.fmax:.3g} within {most} evaluations (it "
                    f"has {float(found.fmax[k]):.3g}): raise `ends.evaluations` or `ends.fmax`, or give a better state"
                )
        start, end = found.x[: len(start)], found.x[len(start) :]
        return start.cpu(), end.cpu(), int(found.calls.sum())

    def route(self, start: torch.Tensor, end: torch.Tensor) -> Route:
        """Align each key image and the final state with the state before it.

        Raises:
            InputError: the two ends are one minimum.
        """
        mirror, keys = self.settings.align == "mirror", [self._state(one) for one in self.keys]
        if not self.free:  # a rotation is no path, in whatever order of atoms
            self._refuse_one_minimum(start, self.model.aligned(end, start, exchange=False), _ONE_POINT)
            return Route(keys, end)
        direct = self.model.aligned(end, start, mirror=mirror)
        self._refuse_one_minimum(start, direct, Same().distance)
        states, said = [start], []
        names = [*(f"key image {k}" for k in range(len(keys))), "final"]
        for name, state in zip(names, [*keys, end], strict=True):
            found = self.model.aligned(state, states[-1], mirror=mirror) if keys else direct
            if found.words:
                before, after = (self._length(states[-1], one) for one in (state, found.x))
                said.append(f"{name}: {found.words} (a way of {after:.4g} instead of {before:.4g})")
            states.append(found.x)
        return Route(states[1:-1], states[-1], "; ".join(said))

    def hint(self, start: torch.Tensor, end: torch.Tensor) -> str:
        """Return a hint if the equivalent mirror image of the final state would make a shorter path."""
        if not self.free or self.settings.align == "mirror":
            return ""
        try:
            other = self.model.aligned(end, start, mirror=True).x
        except InputError:
            return ""
        here, there = (self._length(start, one) for one in (end, other))
        if there > _NEARER * here:
            return ""
        return (
            f"the mirror image of the final state is nearer to the initial one ({there:.4g} instead of {here:.4g}): "
            f"`ends: {{align: mirror}}` takes it"
        )

    def _landscape(self, n_problems: int) -> Landscape:
        return self.model.landscape(n_problems, device=self.device)

    def _state(self, given: dict[str, Any]) -> torch.Tensor:
        read = self.model.state_in_any_order if self.free else self.model.state
        return read(given).to(self.device)

    def _named(self, end: str) -> str:
        """Return the name of an end in messages, with its file if it has one."""
        given = getattr(self, end)
        return f"`{end}` ({FilePath(given['file']).name})" if "file" in given else f"`{end}`"

    def _refuse_one_minimum(self, start: torch.Tensor, end: Aligned, least: float) -> None:
        far = float(self._apart(start, end.x).max())
        if far > least:
            return
        after = f" but for its place and order ({end.words})" if end.words else ""
        ask = (
            " If the exchange of like atoms is the path that you mean, or these are two minima all the same, set "
            "`ends: {align: none}`"
            if self.free
            else ""
        )
        advice = "Give another minimum (another `index` of a file with several)"
        if self.initial == self.final and "file" in self.initial:
            advice = (
                "Of a file with several structures the last is taken: give `index: 0`, say, to one of the two"
            )
        raise InputError(
            f"`initial` and `final` are the same minimum{after}: everything is within {max(far, 1e-6):.2g} of its "
            f"place in the other, so no path leads from one to the other. {advice}.{ask}"
        )

    def _apart(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Return the distance of each row between two states: (n_rows,)."""
        return self._landscape(1).manifold.distance(a.to(self.device), b.to(self.device))

    def _length(self, a: torch.Tensor, b: torch.Tensor) -> float:
        """Return the length of the shortest path between two states."""
        return float(torch.linalg.vector_norm(self._apart(a, b)))

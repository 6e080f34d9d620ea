"""The experiment `path`: the way from one minimum to another over the lowest pass that a band finds."""

from __future__ import annotations

import time
from typing import Annotated, Any

from pydantic import field_validator

from mlopt.core.checkpoint import Checkpoint
from mlopt.core.driver import Driver, minimize
from mlopt.core.errors import InputError
from mlopt.core.experiment import Context, Experiment, Preempted
from mlopt.core.external import ExternalOptimizer
from mlopt.core.landscape import Landscape
from mlopt.core.lazy import torch
from mlopt.core.model import Model, ModelState
from mlopt.core.optimizer import Optimizer
from mlopt.core.plugin import FromRegistry, setting
from mlopt.core.random import problem_keys
from mlopt.core.stop import Stop
from mlopt.optimizers.hopping import local_only
from mlopt.optimizers.lbfgs import LBFGS
from mlopt.optimizers.paths.band import Band
from mlopt.optimizers.paths.idpp import idpp
from mlopt.optimizers.paths.initial import geodesic, perturb, through
from mlopt.optimizers.paths.path_result import PathResult
from mlopt.optimizers.paths.settings import BandSettings, Ends, PathStart, Saddle
from mlopt.optimizers.search import device_of

#: seconds between two lines of progress; evaluations of the band between two lines of metrics
_REPORT_EVERY, _RECORD_EVERY = 1.0, 10


class Path(Experiment):
    """Relax a path between two minima, and look at its saddle.

    With climbing images the band is first relaxed without, to `climb_below`, and then with them to `fmax`; the
    optimizer starts afresh there, since forces of a climbing image are others. `paths` bands, disturbed in their own
    ways, are relaxed in one batch; the lowest barrier counts.

    Everything that a configuration file can say is an argument here.
    """

    model: Annotated[Model, FromRegistry("model")] = setting(..., "the system and its energy")
    initial: ModelState = setting(..., "the minimum at which the path begins: a state of the model")
    final: ModelState = setting(..., "the minimum at which it ends")
    ends: Ends = setting(Ends(), "how the two are relaxed")
    start: PathStart = setting(PathStart(), "where the images are at first")
    band: BandSettings = setting(BandSettings(), "images, and what ties them")
    optimizer: Annotated[Optimizer, FromRegistry("optimizer")] = setting(LBFGS(), "what relaxes the band")
    fmax: float = setting(1e-3, "largest force on a row of the band in the end", unit="energy/length", gt=0)
    climb_below: float | None = setting(
        None, "images climb once the largest force is below this; none: ten times fmax", gt=0
    )
    evaluations: int = setting(5000, "of the band, at most", ge=1)
    paths: int = setting(1, "bands, each disturbed in its own way", ge=1)
    saddle: Saddle = setting(Saddle(), "what is found out about the saddle")
    seed: int = setting(0, "of disturbances; same seed, same result", ge=0, le=2**62)
    device: str = setting("cpu", "cpu, cuda, cuda:1, ...")

    @field_validator("optimizer")
    @classmethod
    def _relaxes(cls, optimizer: Optimizer) -> Optimizer:
        if isinstance(optimizer, ExternalOptimizer):
            raise ValueError(
                f"{type(optimizer).__name__} owns its loop and knows no bands; take lbfgs or fire"
            )
        return local_only(optimizer)

    def check(self) -> None:
        """Read both ends, lay the first path, and look for the device, before anything is written."""
        device_of(self.device)
        landscape, (start, end) = self.landscape(1), self._ends()
        if not self.ends.relax:
            self._refuse_slopes(landscape, start, end)
        self._first(self.band.make(landscape, start, end), None)

    def run(self, context: Context | None = None) -> PathResult:
        """Relax the ends, then the path; analyse it; write results where ``context`` has a place for them.

        Raises:
            InputError: as `check`, or the ends relax to one minimum.
            Preempted: ``context`` asked to stop; a checkpoint has been saved.
        """
        context = context or Context()
        began, spent, stage, end_calls = time.monotonic(), 0.0, 0, 0
        calls = torch.zeros(self.paths, dtype=torch.int64)
        restored = context.restored()
        landscape = self.landscape(self.paths)
        if restored is None:
            start, end, end_calls = self._relaxed_ends()
        else:
            start, end = restored.tensors["start"], restored.tensors["end"]
            calls = restored.tensors["calls"]
            stage, end_calls = (int(restored.meta[name]) for name in ("stage", "end_calls"))
            spent = float(restored.meta["seconds"])
        plain = self.band.make(
            landscape, *(one.to(self.device).repeat(self.paths, 1) for one in (start, end))
        )
        keys = problem_keys(self.seed, torch.arange(self.paths, device=plain.start.device))
        x = (
            self._first(plain, keys)
            if restored is None
            else plain.start.new_zeros(plain.segments.n_rows, plain.start.shape[1])
        )
        watch = _Watch(context, self.fmax, plain)
        while True:
            climbs = stage == 1 and self.band.climbing > 0
            band = plain.replace(climb=self.band.climbing) if climbs else plain
            last = climbs or self.band.climbing == 0
            fmax = self.fmax if last else (self.climb_below or 10.0 * self.fmax)
            before = int(calls.max())
            driver = Driver(band, self.optimizer, Stop(max(1, self.evaluations - before), fmax))
            progress = driver.begin(x, keys)
            if restored is not None:
                progress.load_checkpoint(restored.tensors, restored.meta["progress"])
                restored = None
            while not progress.done:
                driver.advance(progress, watch.of(progress, before))
                tensors, meta = progress.to_checkpoint()
                meta = {
                    "progress": meta,
                    "stage": stage,
                    "end_calls": end_calls,
                    "seconds": spent + time.monotonic() - began,
                }
                tensors |= {"start": start, "end": end, "calls": calls}
                context.save(before + progress.calls, Checkpoint(tensors, meta))
                if context.stopping:
                    raise Preempted
            result = driver.result(progress)
            calls = calls + result.calls.cpu()
            x = result.x
            if last:
                break
            stage = 1
        found = PathResult.of(self, band, result, calls, end_calls, spent + time.monotonic() - began)
        folder = context.results()
        if folder is not None:
            found.write(folder)
        return found

    def landscape(self, n_problems: int) -> Landscape:
        """The model's, on the device of the run."""
        return self.model.landscape(n_problems, device=self.device)

    def _ends(self) -> tuple[torch.Tensor, torch.Tensor]:
        start, end = self.model.state(self.initial), self.model.state(self.final)
        return start.to(self.device), end.to(self.device)

    @property
    def end_fmax(self) -> float:
        """Largest force at an end that counts as a minimum."""
        return self.ends.fmax or 0.1 * self.fmax

    def _relaxed_ends(self) -> tuple[torch.Tensor, torch.Tensor, int]:
        """Both ends, on the CPU, and the evaluations that they took."""
        start, end = self._ends()
        if not self.ends.relax:
            return start.cpu(), end.cpu(), 0
        both = self.landscape(2)
        quench = LBFGS()
        found = minimize(
            both,
            quench,
            torch.cat([start, end]),
            fmax=self.end_fmax,
            force_calls=self.ends.evaluations,
            engine="eager",
        )
        for k, name in enumerate(("initial", "final")):
            if not bool(found.converged[k]):
                raise InputError(
                    f"`{name}` did not relax to a force of {self.end_fmax:.3g} within {self.ends.evaluations} "
                    f"evaluations (it has {float(found.fmax[k]):.3g}): raise `ends.evaluations` or `ends.fmax`, or "
                    f"give a better state"
                )
        start, end = found.x[: len(start)], found.x[len(start) :]
        return start.cpu(), end.cpu(), int(found.calls.sum())

    def _refuse_slopes(self, landscape: Landscape, start: torch.Tensor, end: torch.Tensor) -> None:
        for name, x in (("initial", start), ("final", end)):
            force = landscape.evaluate(x).force
            size = torch.linalg.vector_norm(force, dim=-1)
            if float(size.max()) > self.end_fmax:
                row = self.model.rows(len(x))[int(size.argmax())]
                raise InputError(
                    f"`{name}` is not a minimum: the force on {row} is {float(size.max()):.3g}, above "
                    f"{self.end_fmax:.3g}. Leave out `ends: {{relax: false}}` to have both ends relaxed"
                )

    def _first(self, band: Band, keys: torch.Tensor | None) -> torch.Tensor:
        """The path to begin with."""
        problems = band.landscape.segments.n_problems
        if self.start.file is not None:
            path = self.model.path({"file": self.start.file}).to(band.start)
            if len(path) != self.band.images + 2:
                raise InputError(
                    f"{self.start.file} has {len(path)} images; {self.band.images} moving ones and two ends need "
                    f"{self.band.images + 2}: set `band.images` to {len(path) - 2}"
                )
            x = band.pack([path] * problems)
        else:
            states = [self.model.state(one).to(band.start).repeat(problems, 1) for one in self.start.keys]
            x = through(band, states, self.start.axis) if states else geodesic(band, self.start.axis)
            if self.start.way == "idpp":
                x = idpp(band, x)
        if self.start.disturbance and keys is not None:
            x = perturb(band, x, keys, self.start.disturbance)
        return x


class _Watch:
    """Looks at a run between its steps: whether to pause, and what to tell."""

    def __init__(self, context: Context, fmax: float, band: Band) -> None:
        self.context, self.fmax = context, fmax
        self.images = int(band.layout.images.max())
        self.told = 0.0

    def of(self, progress: Any, before: int) -> Any:
        """The `pause` of one stage."""

        def pause() -> bool:
            now, calls = time.monotonic(), before + progress.calls
            recorded, shown = calls % _RECORD_EVERY == 0, now - self.told > _REPORT_EVERY
            if recorded or shown:
                tally = progress.tally
                force = float(tally.force2.max().sqrt()) if len(tally.force2) else 0.0
            if recorded:  # by evaluations, not by time: a run that was killed and resumed has the same lines
                self.context.metric(calls, fmax=force, gradient_evaluations=calls * self.images)
            if shown:
                self.told = now
                text = (
                    f"{calls} evaluations of the band, largest force {force:.3g} (to reach: {self.fmax:.3g})"
                )
                self.context.progress(0.0, text)
            return self.context.pause()

        return pause

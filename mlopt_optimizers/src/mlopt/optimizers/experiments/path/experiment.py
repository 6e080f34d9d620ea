"""The experiment `path`: the way from one minimum to another over the lowest pass that a band finds."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Annotated, Any

from pydantic import field_validator

from mlopt.core.batch.random import problem_keys
from mlopt.core.driver.driver import Driver
from mlopt.core.driver.external import ExternalOptimizer
from mlopt.core.driver.stop import Stop
from mlopt.core.errors import InputError
from mlopt.core.landscapes.landscape import Landscape
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import FromRegistry, setting
from mlopt.core.protocols.model import Aligned, Model, ModelState
from mlopt.core.protocols.optimizer import Optimizer, local_only
from mlopt.core.runs.checkpoint import Checkpoint
from mlopt.core.runs.device import device_of
from mlopt.core.runs.experiment import Context, Experiment, Preempted
from mlopt.core.structures.checks import COINCIDENT
from mlopt.optimizers.bands.band import Band
from mlopt.optimizers.bands.checks import check_fixed
from mlopt.optimizers.bands.contacts import MET, worst_contact
from mlopt.optimizers.bands.idpp import idpp
from mlopt.optimizers.bands.initial import perturb, through
from mlopt.optimizers.bands.settings import BandSettings, Ends, PathStart, Saddle
from mlopt.optimizers.experiments.path.result import PathResult
from mlopt.optimizers.experiments.path.watch import PathWatch
from mlopt.optimizers.local.lbfgs import LBFGS
from mlopt.optimizers.saddles.connect import Same

#: ends whose order is meant are one minimum if no row is farther off than this
_ONE_POINT = 1e-3
#: atoms that meet are taken apart by a random displacement of this share of the path
_APART = 0.02
#: a mirror image is worth a hint if the path to it is shorter than this share
_NEARER = 0.9


class Path(Experiment):
    """Relax a path between two minima, and look at its saddle.

    With climbing images the band is first relaxed without, to `climb_below`, and then with them to `fmax`; the
    optimizer starts afresh there, since forces of a climbing image are others. `paths` bands, disturbed in their own
    ways, are relaxed in one batch; the lowest barrier counts.

    The final state is first brought as near to the initial one as exchanges of like atoms, and rigid motions of a free
    cluster, can bring it (`ends.align`), for another order is another path.

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
        route = self._route(start, end)
        self._first(self.band.make(landscape, start, route.end), route, None)

    def run(self, context: Context | None = None) -> PathResult:
        """Relax the ends, then the path; analyse it; write results where ``context`` has a place for them.

        Raises:
            InputError: as `check`, or the ends relax to one minimum.
            MloptError: no path has a finite barrier.
            Preempted: ``context`` asked to stop; a checkpoint has been saved.
        """
        context = context or Context()
        began, spent, stage, end_calls = time.monotonic(), 0.0, 0, 0
        calls = torch.zeros(self.paths, dtype=torch.int64)
        restored = context.restored()
        landscape = self.landscape(self.paths)
        watch = PathWatch(context, landscape.giver, self.band.images, self.evaluations, self.paths)
        alignment, route = "", None
        notes: tuple[str, ...] = ()
        if restored is None:
            start, end, end_calls = self._relaxed_ends(watch)
            route = self._route(start, end)
            end, alignment = route.end, route.words
            if alignment:
                context.log(alignment)
            hint = self._mirror_is_nearer(start, end)
            if hint:
                context.log(hint)
        else:
            start, end = restored.tensors["start"], restored.tensors["end"]
            calls = restored.tensors["calls"]
            stage, end_calls = (int(restored.meta[name]) for name in ("stage", "end_calls"))
            spent = float(restored.meta["seconds"])
            # those of versions that aligned nothing do not have these
            alignment, notes = str(restored.meta.get("alignment", "")), tuple(restored.meta.get("notes", ()))
        plain = self.band.make(
            landscape, *(one.to(self.device).repeat(self.paths, 1) for one in (start, end))
        )
        keys = problem_keys(self.seed, torch.arange(self.paths, device=plain.start.device))
        if route is not None:
            x, notes = self._first(plain, route, keys)
            for note in notes:
                context.log(note)
        else:
            x = plain.start.new_zeros(plain.segments.n_rows, plain.start.shape[1])
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
                driver.advance(progress, watch.of_bands(progress, calls, self.fmax))
                tensors, meta = progress.to_checkpoint()
                meta = {
                    "progress": meta,
                    "stage": stage,
                    "end_calls": end_calls,
                    "alignment": alignment,
                    "notes": list(notes),
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
        trial = self.model.trial()
        try:
            found = PathResult.of(
                self,
                band,
                result,
                calls=calls,
                end_calls=end_calls + trial.calls,
                alignment=alignment,
                notes=notes,
                warnings=trial.warnings,
                folder=context.results(),
            )
        finally:  # a potential that fails may be why there is no result
            context.warn([*trial.warnings, *self.model.remarks()])
        return replace(found, wall_s=spent + time.monotonic() - began)

    def landscape(self, n_problems: int) -> Landscape:
        """The model's, on the device of the run."""
        return self.model.landscape(n_problems, device=self.device)

    @property
    def _aligns(self) -> bool:
        """Whether the order and the place of the final state may be changed; those of a whole path are given."""
        return self.ends.align != "none" and self.start.file is None

    def _state(self, given: dict[str, Any]) -> torch.Tensor:
        read = self.model.state_in_any_order if self._aligns else self.model.state
        return read(given).to(self.device)

    def _ends(self) -> tuple[torch.Tensor, torch.Tensor]:
        start, end = self._state(self.initial), self._state(self.final)
        check_fixed(
            self.landscape(1),
            start,
            end,
            self.model.rows(len(start)),
            (self._named("initial"), self._named("final")),
        )
        return start, end

    def _named(self, end: str) -> str:
        """An end in messages, with its file if it has one."""
        given = getattr(self, end)
        return f"`{end}` ({FilePath(given['file']).name})" if "file" in given else f"`{end}`"

    def _route(self, start: torch.Tensor, end: torch.Tensor) -> _Route:
        """Key images and the final state, each as near to what comes before it as it can be brought.

        Raises:
            InputError: the two ends are one minimum.
        """
        mirror, keys = self.ends.align == "mirror", [self._state(one) for one in self.start.keys]
        if not self._aligns:  # whatever the order means, a turn is no path
            self._refuse_one_minimum(start, self.model.aligned(end, start, exchange=False), _ONE_POINT)
            return _Route(keys, end)
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
        return _Route(states[1:-1], states[-1], "; ".join(said))

    def _refuse_one_minimum(self, start: torch.Tensor, end: Aligned, least: float) -> None:
        far = float(self._apart(start, end.x).max())
        if far > least:
            return
        after = f" but for its place and order ({end.words})" if end.words else ""
        ask = (
            " If the exchange of like atoms is the path that you mean, or these are two minima all the same, set "
            "`ends: {align: none}`"
            if self._aligns
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
        """Distance of each row between two states: (n_rows,)."""
        return self.landscape(1).manifold.distance(a.to(self.device), b.to(self.device))

    def _length(self, a: torch.Tensor, b: torch.Tensor) -> float:
        """Of the shortest way between two states."""
        return float(torch.linalg.vector_norm(self._apart(a, b)))

    def _mirror_is_nearer(self, start: torch.Tensor, end: torch.Tensor) -> str:
        """A hint where the mirror image of the final state, which is as good, would make a shorter path."""
        if not self._aligns or self.ends.align == "mirror":
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

    @property
    def end_fmax(self) -> float:
        """Largest force at an end that counts as a minimum."""
        return self.ends.fmax or 0.1 * self.fmax

    def _relaxed_ends(self, watch: PathWatch) -> tuple[torch.Tensor, torch.Tensor, int]:
        """Both ends, on the CPU, and the evaluations that they took."""
        start, end = self._ends()
        if not self.ends.relax:
            return start.cpu(), end.cpu(), 0
        driver = Driver(self.landscape(2), LBFGS(), Stop(self.ends.evaluations, self.end_fmax))
        progress = driver.begin(
            torch.cat([start, end]), problem_keys(0, torch.arange(2, device=start.device))
        )
        driver.advance(progress, watch.of_ends(progress, self.ends.evaluations, self.end_fmax))
        found = driver.result(progress)
        for k, name in enumerate(("initial", "final")):
            if not bool(found.converged[k]):
                raise InputError(
                    f"{self._named(name)} did not relax to a force of {self.end_fmax:.3g} within "
                    f"{self.ends.evaluations} evaluations (it has {float(found.fmax[k]):.3g}): raise "
                    f"`ends.evaluations` or `ends.fmax`, or give a better state"
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
                    f"{self._named(name)} is not a minimum: the force on {row} is {float(size.max()):.3g}, above "
                    f"{self.end_fmax:.3g}. Leave out `ends: {{relax: false}}` to have both ends relaxed"
                )

    def _first(
        self, band: Band, route: _Route, keys: torch.Tensor | None
    ) -> tuple[torch.Tensor, tuple[str, ...]]:
        """The path to begin with, and what is to be said of it.

        keys: of the disturbances; None lays the path without.
        """
        if self.start.file is not None:
            x = self._given(band, self.start.file)
        else:
            x = self._laid(band, route)
            if self.start.way == "idpp":
                x = idpp(band, x)
        said: tuple[str, ...] = ()
        contact = worst_contact(band, x)
        if contact is not None and self.start.way == "auto" and self.start.file is None:
            said = (f"the path begins by IDPP, for on the straight way {contact}",)
            if contact.share < MET:  # no direction leads apart what has met
                ids = torch.arange(len(band.layout.images), device=band.start.device)
                x = perturb(band, x, problem_keys(self.seed, ids), _APART)
            x = idpp(band, x)
            contact = worst_contact(band, x)
        if contact is not None:
            met = contact.share < COINCIDENT
            text = f"on the path to begin with {contact}"
            advice = (
                "take `start: {way: idpp}`, give key images, or disturb it (`start: {disturbance: 0.05}`)"
            )
            if met and not self.start.disturbance:
                raise InputError(f"{text}; {advice}")
            said = (*said, f"{text}: if the band does not converge, {advice}")
        if self.start.disturbance and keys is not None:
            x = perturb(band, x, keys, self.start.disturbance)
        return x, said

    def _given(self, band: Band, file: str) -> torch.Tensor:
        """The path of a file."""
        path = self.model.path({"file": file}).to(band.start)
        if len(path) != self.band.images + 2:
            advice = (
                f"set `band.images` to {len(path) - 2}"
                if len(path) > 2
                else "give a path with images between"
            )
            raise InputError(
                f"{file} has {len(path)} images; {self.band.images} moving ones and two ends need "
                f"{self.band.images + 2}: {advice}"
            )
        return band.pack([path] * band.landscape.segments.n_problems)

    def _laid(self, band: Band, route: _Route) -> torch.Tensor:
        """The shortest path through the key images."""
        problems = band.landscape.segments.n_problems
        states = [one.to(band.start).repeat(problems, 1) for one in route.keys]
        return through(band, states, self.start.axis)


@dataclass(frozen=True)
class _Route:
    """Key images and the final state (each (n_rows, d)), and in words how they were aligned."""

    keys: list[torch.Tensor]
    end: torch.Tensor
    words: str = ""

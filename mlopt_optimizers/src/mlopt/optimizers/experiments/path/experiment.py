"""The experiment `path`: a minimum-energy path between two minima, and its saddle."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Annotated, Any

from pydantic import field_validator

from mlopt.core.batch.random import problem_keys
from mlopt.core.driver.driver import Driver
from mlopt.core.driver.external import ExternalOptimizer
from mlopt.core.driver.result import Result
from mlopt.core.driver.stop import Stop
from mlopt.core.errors import InputError
from mlopt.core.landscapes.landscape import Landscape
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import FromRegistry, setting
from mlopt.core.protocols.model import Model, ModelState
from mlopt.core.protocols.optimizer import Optimizer, local_only
from mlopt.core.runs.checkpoint import Checkpoint
from mlopt.core.runs.device import device_of
from mlopt.core.runs.experiment import Context, Experiment
from mlopt.core.runs.session import Session
from mlopt.core.structures.checks import COINCIDENT
from mlopt.optimizers.bands.band import Band
from mlopt.optimizers.bands.contacts import around_contacts, worst_contact
from mlopt.optimizers.bands.idpp import idpp
from mlopt.optimizers.bands.initial import perturb, through
from mlopt.optimizers.bands.settings import BandSettings, Ends, PathStart, Saddle
from mlopt.optimizers.experiments.path import pictures
from mlopt.optimizers.experiments.path.analysis import Analysis, cause
from mlopt.optimizers.experiments.path.ends import PathEnds, Route
from mlopt.optimizers.experiments.path.relaxed import RelaxedPath
from mlopt.optimizers.experiments.path.result import PathResult
from mlopt.optimizers.experiments.path.watch import PathWatch
from mlopt.optimizers.local.lbfgs import LBFGS


class Path(Experiment):
    """A minimum-energy path between two minima, with its saddle.

    With climbing images the band is relaxed in two stages: first without climbing, to the force `climb_below`, then
    with it, to `fmax`. The optimizer starts anew for the second stage, because the forces on a climbing image are
    different. `paths` bands with different random displacements are relaxed in one batch, and the one with the lowest
    barrier counts.

    The final state is first aligned with the initial one (`ends.align`). Like atoms are exchanged, and a free cluster
    is rotated and translated. Without this, another order of the atoms would mean another path.

    Every entry of a configuration file is an argument here.
    """

    model: Annotated[Model, FromRegistry("model")] = setting(..., "the system and its energy")
    initial: ModelState = setting(..., "first minimum of the path, a state of the model")
    final: ModelState = setting(..., "last minimum of the path, a state of the model")
    ends: Ends = setting(Ends(), "relaxation and alignment of the two ends")
    start: PathStart = setting(PathStart(), "initial path")
    band: BandSettings = setting(BandSettings(), "number of images, springs and tangents")
    optimizer: Annotated[Optimizer, FromRegistry("optimizer")] = setting(
        LBFGS(), "local optimizer that relaxes the band"
    )
    fmax: float = setting(1e-3, "largest force on a row of the relaxed band", unit="energy/length", gt=0)
    climb_below: float | None = setting(
        None, "largest force below which images begin to climb; none: ten times fmax", gt=0
    )
    evaluations: int = setting(5000, "limit for each band", ge=1)
    paths: int = setting(1, "number of bands, each with another random displacement", ge=1)
    saddle: Saddle = setting(Saddle(), "analysis of the saddle")
    seed: int = setting(
        0, "seed of random displacements; the same seed gives the same result", ge=0, le=2**62
    )
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
        """Read both ends, make the initial path, and find the device, before anything is written.

        Raises:
            InputError: one of these is impossible.
        """
        device_of(self.device)
        landscape, ends = self.landscape(1), self.path_ends
        start, end = ends.read()
        if not self.ends.relax:
            ends.refuse_slopes(start, end)
        route = ends.route(start, end)
        self.first(self.band.make(landscape, start, route.end), route, None)

    def run(self, context: Context | None = None) -> PathResult:
        """Relax the ends and the path, analyse it, and write results if ``context`` has a folder for them.

        Raises:
            InputError: as in `check`, or the ends relax to one minimum.
            MloptError: no path has a finite barrier.
            Preempted: ``context`` asked to stop; a checkpoint has been saved.
        """
        session = Session(context)
        context, landscape = session.context, self.landscape(self.paths)
        watch = PathWatch(context, landscape.giver, self.band.images, self.evaluations, self.paths)
        if session.restored is None:
            way, plain, x = self._begun(landscape, watch, context)
        else:
            way, x = _Way.of(session.restored), None
            plain = self._plain(landscape, way.start, way.end)
        band, result, way = self._relaxed(way, plain, x, watch, session)
        folder, trial = context.results(), self.model.trial()
        try:
            relaxed = RelaxedPath.of(self.model, band, result, folder)
            analysis, notes = self._analysed(relaxed, folder)
        finally:  # a potential that fails may be why there is no result
            context.warn([*trial.warnings, *self.model.remarks()])
        images = band.layout.images.cpu()
        # the ends of all bands, their profiles, and the look at climbing images
        looks = 2 * len(result) + 2 * int(images.sum())
        return PathResult(
            **vars(relaxed),
            analysis=analysis,
            temperature=self.saddle.temperature,
            alignment=way.alignment,
            notes=(*way.notes, *notes),
            warnings=trial.warnings,
            gradient_evaluations=int((way.calls * images).sum()),
            other_evaluations=way.end_calls + trial.calls + looks + analysis.calls,
            wall_s=session.seconds,
        )

    def landscape(self, n_problems: int) -> Landscape:
        """Return the model's landscape, on the device of the run."""
        return self.model.landscape(n_problems, device=self.device)

    @property
    def path_ends(self) -> PathEnds:
        """The two ends with their settings."""
        return PathEnds(
            self.model,
            self.initial,
            self.final,
            self.start.keys,
            self.ends,
            free=self.ends.align != "none" and self.start.file is None,
            fmax=self.ends.fmax or 0.1 * self.fmax,
            device=self.device,
        )

    def _begun(
        self, landscape: Landscape, watch: PathWatch, context: Context
    ) -> tuple[_Way, Band, torch.Tensor]:
        """Relax and align the ends, and interpolate images between them; return bands and the rows of their images."""
        ends = self.path_ends
        start, end, end_calls = ends.relaxed(watch.of_ends)
        route = ends.route(start, end)
        plain = self._plain(landscape, start, route.end)
        for line in (route.words, ends.hint(start, route.end)):
            if line:
                context.log(line)
        x, notes = self.first(plain, route, self._keys(plain))
        for note in notes:
            context.log(note)
        calls = torch.zeros(self.paths, dtype=torch.int64)
        return _Way(start, route.end, calls, end_calls, route.words, notes), plain, x

    def _relaxed(
        self, way: _Way, plain: Band, x: torch.Tensor | None, watch: PathWatch, session: Session
    ) -> tuple[Band, Result, _Way]:
        """Relax the bands, first without climbing images, then with them. x: None resumes from a checkpoint."""
        climbing = self.band.climbing
        keys, restored = self._keys(plain), session.restored
        while True:
            climbs = way.stage == 1 and climbing > 0
            band = plain.replace(climb=climbing) if climbs else plain
            last = climbs or climbing == 0
            fmax = self.fmax if last else (self.climb_below or 10.0 * self.fmax)
            before = int(way.calls.max())
            driver = Driver(band, self.optimizer, Stop(max(1, self.evaluations - before), fmax))
            if x is None:
                x = plain.start.new_zeros(plain.segments.n_rows, plain.start.shape[1])
            progress = driver.begin(x, keys)
            if restored is not None:
                progress.load_checkpoint(restored.tensors, restored.meta["progress"])
                restored = None
            while not progress.done:
                driver.advance(progress, watch.of_bands(progress, way.calls, self.fmax))
                tensors, meta = progress.to_checkpoint()
                session.save(before + progress.calls, tensors | way.tensors, {"progress": meta} | way.meta)
                session.leave_if_asked()
            result = driver.result(progress)
            way = replace(way, calls=way.calls + result.calls.cpu(), stage=1)
            if last:
                return band, result, way
            x = result.x

    def _plain(self, landscape: Landscape, start: torch.Tensor, end: torch.Tensor) -> Band:
        """Return bands without climbing images, one for each path."""
        ends = (one.to(self.device).repeat(self.paths, 1) for one in (start, end))
        return self.band.make(landscape, *ends)

    def _keys(self, band: Band) -> torch.Tensor:
        return problem_keys(self.seed, torch.arange(self.paths, device=band.start.device))

    def _analysed(self, relaxed: RelaxedPath, folder: FilePath | None) -> tuple[Analysis, tuple[str, ...]]:
        """Analyse the saddle and write all files; return messages about pictures that could not be drawn."""
        if folder is not None:
            relaxed.write(folder)
        analysis = Analysis.of(self.saddle, self.model, relaxed.band, relaxed.saddle, self.path_ends.fmax)
        if folder is not None:
            try:
                pictures.write(relaxed, folder)  # some of them evaluate the model
            except Exception as error:
                return analysis, (f"not all pictures were drawn: {cause(error)}",)
        return analysis, ()

    def first(
        self, band: Band, route: Route, keys: torch.Tensor | None
    ) -> tuple[torch.Tensor, tuple[str, ...]]:
        """Return the initial path, rows of ``band``, and notes about it.

        keys: (n_bands,) for random displacements; None for none.

        Raises:
            InputError: rows meet on the path, or a file does not fit.
        """
        if self.start.file is not None:
            x = self._given(band, self.start.file)
        else:
            x = self._laid(band, route)
            if self.start.way == "idpp":
                x = idpp(band, x)
        said: tuple[str, ...] = ()
        if self.start.way == "auto" and self.start.file is None:
            ids = torch.arange(len(band.layout.images), device=band.start.device)
            x, contact = around_contacts(band, x, problem_keys(self.seed, ids))
            if contact is not None:
                said = (f"the path begins by IDPP, for on the straight way {contact}",)
                contact = worst_contact(band, x)
        else:
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
        """Return the path of a file."""
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

    def _laid(self, band: Band, route: Route) -> torch.Tensor:
        """Return the shortest path through the key images."""
        problems = band.landscape.segments.n_problems
        states = [one.to(band.start).repeat(problems, 1) for one in route.keys]
        return through(band, states, self.start.axis)


@dataclass(frozen=True)
class _Way:
    """The data of a path run that a checkpoint stores besides the progress of its bands.

    start, end: (n_rows, d) relaxed and aligned, on the CPU. end_calls: evaluations of the ends.
    calls: (paths,) evaluations of each band in former stages. stage: 1 while images climb.
    """

    start: torch.Tensor
    end: torch.Tensor
    calls: torch.Tensor
    end_calls: int
    alignment: str
    notes: tuple[str, ...]
    stage: int = 0

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> _Way:
        """Read the data of `tensors` and `meta`; versions without alignment stored neither alignment nor notes."""
        tensors, meta = checkpoint.tensors, checkpoint.meta
        return cls(
            start=tensors["start"],
            end=tensors["end"],
            calls=tensors["calls"],
            end_calls=int(meta["end_calls"]),
            alignment=str(meta.get("alignment", "")),
            notes=tuple(meta.get("notes", ())),
            stage=int(meta["stage"]),
        )

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """The tensors for a checkpoint."""
        return {"start": self.start, "end": self.end, "calls": self.calls}

    @property
    def meta(self) -> dict[str, Any]:
        """All other data for a checkpoint."""
        names = ("stage", "end_calls", "alignment")
        return {name: getattr(self, name) for name in names} | {"notes": list(self.notes)}

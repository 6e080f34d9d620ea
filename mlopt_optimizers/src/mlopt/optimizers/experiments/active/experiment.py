"""The experiment `active`: a potential that is learned from labels which walkers ask for on their way."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlopt.core.atoms.dataset import Dataset
from mlopt.core.atoms.digest import structure_digest
from mlopt.core.atoms.elements import SYMBOLS
from mlopt.core.atoms.systems import Systems
from mlopt.core.errors import InputError
from mlopt.core.landscapes.landscape import AtomsLandscape
from mlopt.core.protocols.optimizer import local_only
from mlopt.core.runs.experiment import Context
from mlopt.core.runs.session import Session
from mlopt.core.structures.checks import check_same_atoms
from mlopt.optimizers.bands.checks import check_ends
from mlopt.optimizers.experiments.active.band_walk import BandBetween
from mlopt.optimizers.experiments.active.cut import CutOut
from mlopt.optimizers.experiments.active.plan import ActivePlan
from mlopt.optimizers.experiments.active.result import ActiveResult
from mlopt.optimizers.experiments.active.sitting import Sitting
from mlopt.optimizers.experiments.active.trained import TrainedLearner
from mlopt.optimizers.fitting.projected import check_radial
from mlopt.optimizers.labelling.ledger import Ledger


class Active(ActivePlan):
    """Learning on the fly: walkers move on a fitted potential, and ask for labels where it cannot be trusted.

    ``optimizer`` decides what walkers do: an integrator is molecular dynamics, a local optimizer relaxes, a search
    looks for the lowest minimum. The labeller computes the labels that they ask for, and the potential is fitted anew.
    The walkers then go on from where they stood (Podryabinkin & Shapeev, Comput. Mater. Sci. 140, 171 (2017))::

        Active(system="Cu13", potential=Mtp(level=8), labeller=CalculatorLabeller(...), optimizer=BasinHopping()).run()

    Every label is in a ledger before it is used, so a run that was killed computes no label again.
    """

    def check(self) -> None:
        """Read the structure and the first labels, and check that the settings fit together.

        Raises:
            InputError: the settings do not fit; the message names what to change.
        """
        if self.band is not None:
            self._check_band(self.band)
        relaxing = not self.optimizer.searching and self.optimizer.seeks != "nothing"
        if not relaxing and self.fmax is not None:
            raise InputError("`fmax` ends relaxations only; leave it out with a search, and with dynamics")
        if relaxing and self.fmax is None:
            raise InputError(
                "`fmax` is missing: give the largest force at which a relaxation ends, such as 0.01; without it all "
                "force calls would be spent, and no end labelled"
            )
        if not self.system.placed and self.starter.given:
            raise InputError("`start: given` needs positions, and a formula has none: give a `system.file`")
        if self.asking.cut is not None:
            self._check_cut(self.asking.cut)
        self.labeller.check()
        system = self.system.load()
        self.potential.check(system)
        if self.begin.file is not None:
            data = self.begin.file.read()
            self._fitting(data, system)
            self.training.held_back(len(data))
        elif self.begin.structures >= self.labels:
            raise InputError(
                f"`labels` ({self.labels}) leaves none beyond the {self.begin.structures} structures of `begin`"
            )
        else:
            self.training.held_back(self.begin.structures)
            if self.radial is not None:
                check_radial(self.potential.prepared(Dataset(self.beginning(system))), self.radial)

    def _fitting(self, data: Dataset, system: Systems) -> None:
        """Refuse first labels that say nothing about a species of the system, or that the potential refuses."""
        without = sorted(set(system.z.tolist()) - set(data.systems.z.tolist()))
        if without:
            names = ", ".join(SYMBOLS[number] for number in without)
            raise InputError(
                f"active: the structures of `begin.file` have no {names}, which the system has; add some that do, or "
                f"leave the file out"
            )
        prepared = self.potential.prepared(data)
        learner = self.learner(system)
        if isinstance(learner, TrainedLearner):
            learner.check(prepared)
        if self.radial is not None:
            check_radial(prepared, self.radial)

    def _check_band(self, band: BandBetween) -> None:
        try:
            local_only(self.optimizer)
        except ValueError as error:
            raise InputError(f"active: `optimizer` relaxes the band: {error}") from None
        if self.fmax is None or self.fmax > self.polish_fmax:
            raise InputError(
                f"a band needs `fmax`, the largest force on it by the fitted potential, of at most `polish_fmax` "
                f"({self.polish_fmax:g}), that of labels; give about half of it"
            )
        if not band.climbing or band.kind != "neb":
            raise InputError(
                "the saddle of a band is labelled where an image has climbed to it; leave out `band.climb` and "
                "`band.kind`"
            )
        if not (self.system.placed and band.final.placed and self.starter.given):
            raise InputError("a band is between two structures; give files, and leave out `start`")
        initial, final = self.system.load(), band.final.load()
        check_same_atoms(final, initial, "`band.final`", "`system`")
        check_ends(AtomsLandscape(initial, self.potential), initial.pos, final.pos)

    def _check_cut(self, cut: CutOut) -> None:
        if self.optimizer.searching:
            raise InputError("a search has whole minima labelled; leave out `asking.cut`")
        reach = self.potential.reach
        if reach is None:
            raise InputError(
                f"active: {type(self.potential).__name__} does not tell how far its atoms reach; leave out `asking.cut`"
            )
        if cut.radius < reach:
            raise InputError(
                f"`asking.cut.radius` ({cut.radius:g}) is below the reach of the potential ({reach:g}): the atom in "
                f"the middle would lack neighbours; give at least {reach:g}, better twice that"
            )

    def run(self, context: Context | None = None) -> ActiveResult:
        """Walk, ask, label and fit until no walker asks any more.

        Raises:
            InputError: as `check`; or a labeller refuses the structures.
            MloptError: too many labels failed in a row.
            Preempted: ``context`` asked to stop, or labels have to come from elsewhere; a checkpoint has been saved.
        """
        system = self.system.load()
        session = Session(context, " ".join(structure_digest(one) for one in self.states(system)))
        with self._ledger(session.context) as ledger:
            return Sitting(self, system, session, ledger).whole()

    @contextmanager
    def _ledger(self, context: Context) -> Iterator[Ledger]:
        """Return the ledger of the settings, that of the run, or one that nobody keeps."""
        folder = context.results()
        with tempfile.TemporaryDirectory() as scratch:
            own = Path(scratch if folder is None else folder) / "ledger.db"
            with Ledger(own if self.ledger is None else self.ledger) as ledger:
                yield ledger

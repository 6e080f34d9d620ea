"""What a potential has to say of itself reaches log and summary of every kind of run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ase.calculators.calculator import Calculator, all_changes
from ase.cluster import Octahedron
from ase.io import write

from mlopt.core.runs.experiment import Experiment
from mlopt.core.structures.spec import SystemSpec
from mlopt.core.testing.recorder import Recorder
from mlopt.optimizers import Adam, Budget, Polish, Search
from mlopt.optimizers.bands.settings import BandSettings, Ends, Saddle
from mlopt.optimizers.experiments.contest.experiment import Contest, Contestant
from mlopt.optimizers.experiments.network.experiment import Network
from mlopt.optimizers.experiments.path.experiment import Path as Band
from mlopt.optimizers.starts.starts import GivenStart
from mlopt.optimizers.training.tasks.systems import Case
from mlopt.potentials import AsePotential
from mlopt.potentials.models.atoms import AtomsModel


class Halved(Calculator):
    """Springs between all atoms, with half of the forces; it gives up where it is told to."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012  (ASE's protocol)
    fails = False

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        if self.fails:
            raise RuntimeError("no convergence")
        vectors = atoms.positions[:, None] - atoms.positions[None]
        lengths = (vectors**2).sum(-1) ** 0.5
        stretch = lengths - 2.5
        lengths[lengths == 0] = 1.0
        forces = -(stretch / lengths)[..., None] * vectors
        self.results = {"energy": 0.25 * (stretch**2).sum(), "forces": 0.5 * forces.sum(1)}


class Logging(Recorder):
    """Keeps the log, too."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.logged: list[str] = []

    def log(self, message: str) -> None:
        self.logged.append(message)


def runs(folder: Path, potential: AsePotential) -> dict[str, Experiment]:
    copper = Octahedron("Cu", 2)
    copper.rattle(0.05, seed=1)
    write(folder / "a.xyz", copper)
    copper.rattle(0.3, seed=2)
    write(folder / "b.xyz", copper)
    system, polish = SystemSpec(file=str(folder / "a.xyz")), Polish(force_calls=5)
    case = Case(system=system, potential=potential, start=GivenStart())
    optimizers = [Contestant(label=name, optimizer=Adam()) for name in ("one", "other")]
    return {
        "search": Search(
            system=system,
            potential=potential,
            optimizer=Adam(),
            starts=1,
            budget=Budget(force_calls=30),
            polish=polish,
        ),
        "contest": Contest(systems=[case], contestants=optimizers, starts=1, force_calls=30, polish=polish),
        "path": Band(
            model=AtomsModel(system=system, potential=potential),
            initial={"file": str(folder / "a.xyz")},
            final={"file": str(folder / "b.xyz")},
            ends=Ends(relax=True, evaluations=30, fmax=1e3, align="none"),
            band=BandSettings(images=2),
            evaluations=6,
            saddle=Saddle(modes=0, connect=False),
        ),
        "network": Network(
            system=system, potential=potential, starts=1, searches=1, force_calls=30, rounds=1
        ),
    }


@pytest.mark.parametrize("kind", ["search", "contest", "path", "network"])
def test_warnings_and_failures_are_told(kind: str, tmp_path: Path) -> None:
    calculator = Halved()  # type: ignore[no-untyped-call]
    potential = AsePotential.wrap(calculator)
    experiment = runs(tmp_path, potential)[kind]
    calculator.fails = True
    potential.evaluate(SystemSpec(file=str(tmp_path / "a.xyz")).load())
    calculator.fails = False
    context = Logging(tmp_path / "results")
    told = experiment.run(context).summary()
    mistrusted = [line for line in told["warnings"] if "do not belong to its energy" in line]
    assert len(mistrusted) == 1 and (kind != "contest" or mistrusted[0].startswith("a: "))
    logged = [line for line in context.logged if "do not belong to its energy" in line]
    assert len(logged) == (2 if kind == "contest" else 1) and "warning: " in logged[0]
    assert any("no convergence" in line and "warning: " in line for line in context.logged)

"""Cut-outs of the experiment `active`: the atom in the middle sees what it sees in the whole, and no walker waits."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111
from ase.constraints import FixAtoms
from pydantic import ValidationError

from mlopt.core.atoms.neighbours import find_neighbours
from mlopt.core.atoms.systems import Systems
from mlopt.core.errors import InputError
from mlopt.core.structures.spec import SystemSpec
from mlopt.core.testing.experiment import check_experiment
from mlopt.core.testing.recorder import FolderRecorder
from mlopt.optimizers.dynamics import Langevin
from mlopt.optimizers.experiments.active import Active, Asking, Beginning, CutOut
from mlopt.optimizers.experiments.active.cut import Piece
from mlopt.optimizers.labelling import PotentialLabeller
from mlopt.optimizers.searches.basin_hopping import BasinHopping
from mlopt.potentials import Mtp, StillingerWeber

REACH = 3.4
POTENTIAL = Mtp(level=6, cutoff=REACH, elements=["Cu", "Au"], shortest=1.5)
Form = Literal["periodic", "cluster"]


def alloy(kind: str) -> Systems:
    """Copper with some gold, shaken, with constraints, an isotope and charges."""
    if kind == "skewed":
        atoms = bulk("Cu") * (6, 6, 6)
        atoms.set_cell(
            atoms.cell.array @ [[1.0, 0.1, 0.0], [0.0, 1.0, 0.2], [0.05, 0.0, 1.0]], scale_atoms=True
        )
    elif kind == "slab":
        atoms = fcc111("Cu", (6, 7, 6), vacuum=None)
        atoms.pbc = [True, True, False]
    else:
        atoms = Atoms(bulk("Cu", cubic=True) * (4, 4, 4), pbc=False, cell=None)
    rng = np.random.default_rng(3)
    atoms.rattle(0.12, rng=rng)
    atoms.numbers[rng.permutation(len(atoms))[: len(atoms) // 4]] = 79
    atoms.set_constraint(FixAtoms(indices=range(0, len(atoms), 5)))
    masses = atoms.get_masses()
    masses[::3] += 2.0
    atoms.set_masses(masses)
    atoms.set_initial_charges(np.arange(len(atoms)) / 100.0)
    return Systems.from_atoms(atoms)


def closest(systems: Systems) -> dict[tuple[int, int], float]:
    """The shortest distance of each pair of species."""
    pairs = find_neighbours(systems, REACH)
    found: dict[tuple[int, int], float] = {}
    both = torch.stack([systems.z[pairs.first], systems.z[pairs.second]], 1).sort(1).values.tolist()
    for key, distance in zip(both, pairs.differences(systems).norm(dim=0).tolist(), strict=True):
        found[tuple(key)] = min(distance, found.get(tuple(key), np.inf))
    return found


@pytest.mark.parametrize("form", ["periodic", "cluster"])
@pytest.mark.parametrize("kind", ["skewed", "slab", "free"])
def test_the_core_sees_what_it_sees_in_the_whole(kind: str, form: Form) -> None:
    system = alloy(kind)
    whole = POTENTIAL.row_gradients(system)
    for atom in (0, 17, len(system.pos) - 1):
        piece = CutOut(radius=4.6, form=form).of(system, atom, REACH)
        assert piece is not None and 5 < len(piece.rows) < len(system.pos)
        assert int(piece.rows[piece.centre]) == atom and bool(piece.core[piece.centre])
        assert not bool(piece.core.all())
        own = POTENTIAL.row_gradients(piece.structure)[piece.core]
        torch.testing.assert_close(own, whole[piece.rows[piece.core]], rtol=0, atol=1e-9)
        allowed = closest(system)
        assert all(one > allowed[key] - 1e-6 for key, one in closest(piece.structure).items())
        if form == "cluster":
            assert not piece.structure.periodic
        else:
            assert piece.structure.pbc.tolist() == system.pbc.tolist()


def test_a_box_is_wide_enough_for_any_neighbour() -> None:
    piece = CutOut(radius=4.6).of(alloy("skewed"), 3, REACH)
    assert piece is not None
    widths = 1.0 / torch.linalg.inv(piece.structure.cell[0]).norm(dim=0)
    assert bool((widths >= 2 * 4.6 - 1e-9).all()) and bool((widths < 2 * 4.6 + 3.0).all())


@pytest.mark.parametrize("form", ["periodic", "cluster"])
def test_what_atoms_carry_goes_with_them(form: Form) -> None:
    system = alloy("slab")
    piece = CutOut(radius=4.6, form=form).of(system, 20, REACH)
    assert piece is not None
    (whole,), (own,) = system.to_atoms(), piece.structure.to_atoms()
    rows = piece.rows.numpy()
    assert torch.equal(piece.structure.fixed, system.fixed[piece.rows]) and bool(piece.structure.fixed.any())
    for name in ("numbers", "masses", "initial_charges"):
        assert (own.get_array(name) == whole.get_array(name)[rows]).all()


def test_directions_that_are_not_wider_stay_whole() -> None:
    atoms = bulk("Cu") * (2, 6, 6)
    atoms.rattle(0.1, seed=1)
    system = Systems.from_atoms(atoms)
    piece = CutOut(radius=4.6).of(system, 5, REACH)
    assert piece is not None and torch.equal(piece.structure.cell[0, 0], system.cell[0, 0])
    assert len(piece.rows) < len(system.pos)
    torch.testing.assert_close(
        POTENTIAL.row_gradients(piece.structure)[piece.core],
        POTENTIAL.row_gradients(system)[piece.rows[piece.core]],
        rtol=0,
        atol=1e-9,
    )


@pytest.mark.parametrize("form", ["periodic", "cluster"])
def test_nothing_is_cut_out_of_a_small_structure(form: Form) -> None:
    small = Systems.from_atoms(bulk("Cu", cubic=True) * (2, 2, 2))
    assert CutOut(radius=5.5, form=form).of(small, 0, REACH) is None


def dynamics(**settings: Any) -> Active:
    """Silicon that melts, in a cell of which less can be labelled."""
    given: dict[str, Any] = {
        "system": SystemSpec(crystal={"element": "Si", "repeat": [2, 2, 2]}),
        "potential": Mtp(level=6, cutoff=3.6, elements=["Si"], shortest=1.5),
        "labeller": PotentialLabeller(potential=StillingerWeber()),
        "optimizer": Langevin(time_step=2.0, temperature=3000.0, friction=0.02),
        "walkers": 1,
        "force_calls": 12,
        "begin": Beginning(structures=2, displacement=0.05),
        "asking": Asking(labels=3, cut=CutOut(radius=4.0)),
        "labels": 40,
        "engine": "eager",
    }
    return Active(**(given | settings))


@pytest.mark.slow
@pytest.mark.parametrize("form", ["periodic", "cluster"])
def test_contract(form: Form, tmp_path: Path) -> None:
    asking = Asking(labels=3, cut=CutOut(radius=4.0, form=form))
    whole = check_experiment(lambda: dynamics(asking=asking), tmp_path)
    rows = list(csv.DictReader((whole / "results" / "labels.csv").read_text().splitlines()))
    asked = [row for row in rows if row["trigger"] != "beginning"]
    assert asked and all(row["atom"] and int(row["atoms"]) < 64 for row in asked)
    assert "config_type=cut-out" in (whole / "results" / "labels.extxyz").read_text()


def test_the_grade_of_the_atom_falls() -> None:
    experiment = dynamics()
    system = experiment.system.load()
    learner = experiment.learner(system)
    learned = learner.begun(experiment.labeller.label(experiment.beginning(system)))
    walk = experiment.walk(system, print)
    walk.learn(learned)
    wish = max(walk.advance(lambda: None), key=lambda one: one.grade)
    before = learned.grader.grade(wish.structure).row
    atom = int(before.argmax())
    assert experiment.asking.cut is not None
    piece = experiment.asking.cut.of(wish.structure, atom, 3.6)
    assert piece is not None
    there = learned.grader.grade(piece.structure).row[piece.centre]
    torch.testing.assert_close(there, before[atom], rtol=1e-6, atol=0)
    after = learner.extended(learned, experiment.labeller.label(piece.structure), piece.core)
    assert before[atom] > 2.0 and float(after.grader.grade(wish.structure).row[atom]) < 1.01
    owners = torch.from_numpy(after.grader.active_set.owners)
    assert int((owners == len(learned.data)).sum()) <= int(piece.core.sum())


def test_the_fit_takes_the_forces_on_the_core_alone() -> None:
    experiment = dynamics()
    system = experiment.system.load()
    learner = experiment.learner(system)
    learned = learner.begun(experiment.labeller.label(experiment.beginning(system)))
    piece = CutOut(radius=4.0).of(learned.data.systems[0], 7, 3.6)
    assert piece is not None
    label = experiment.labeller.label(piece.structure)
    after = [learner.extended(learned, label, core) for core in (piece.core, None)]
    more = [one.rows.rows - learned.rows.rows for one in after]
    assert more == [3 * int(piece.core.sum()), 1 + 3 * len(piece.rows)]
    assert after[0].whole.tolist() == [True, True, False]


def test_a_cut_that_does_not_help_is_followed_by_the_whole(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The surroundings of another atom leave the grade as it is."""
    cut = CutOut.of

    def of_another(self: CutOut, system: Systems, atom: int, reach: float) -> Piece | None:
        return cut(self, system.with_pos(crystal), atom, reach)

    crystal = dynamics().system.load().pos
    monkeypatch.setattr(CutOut, "of", of_another)
    found = dynamics(labels=30, force_calls=25).run(FolderRecorder(tmp_path))
    labels = [one for one in found.record.labels if one["trigger"] == "stopped"]
    tried = [(one["calls"], one["atom"]) for one in labels if one["atom"] is not None]
    wholes = [one["calls"] for one in labels if one["atom"] is None]
    assert tried and len(set(tried)) == len(tried), "no atom is cut out twice at one point"
    assert wholes and {one["atoms"] for one in labels if one["atom"] is None} == {64}
    assert not found.unanswered


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"asking": Asking(cut=CutOut(radius=3.0))},
            r"radius` \(3\) is below the reach of the potential \(3.6\)",
        ),
        ({"optimizer": BasinHopping()}, "a search has whole minima labelled"),
    ],
)
def test_refusals(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        dynamics(**settings).check()


def test_no_atom_has_a_grade_by_configurations() -> None:
    with pytest.raises(ValidationError, match="by configurations atoms have none"):
        Asking(by="configurations", cut=CutOut())

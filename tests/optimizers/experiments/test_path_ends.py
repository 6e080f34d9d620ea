"""Ends of a path of atoms: aligned, or refused as no ends of a path; fixed atoms; contacts on the way."""

from __future__ import annotations

from pathlib import Path as FilePath
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import add_adsorbate, fcc100
from ase.constraints import FixAtoms
from ase.io import write

from mlopt.core.errors import InputError
from mlopt.core.runs.experiment import Context, Preempted
from mlopt.core.structures.spec import SystemSpec
from mlopt.core.testing.recorder import Recorder, Resumed
from mlopt.optimizers.bands.settings import BandSettings, Ends, PathStart, Saddle
from mlopt.optimizers.experiments.path.experiment import Path
from mlopt.optimizers.experiments.path.watch import PathWatch
from mlopt.optimizers.saddles.connect import connect
from mlopt.potentials import LennardJones, Morse
from mlopt.potentials.models.atoms import AtomsModel
from mlopt.potentials.models.surfaces import MullerBrown

#: the pass between the two lowest minima of seven Lennard-Jones atoms, above the lower
LJ7 = 1.0606504


def bipyramid() -> Atoms:
    ring = np.arange(5) * 2 * np.pi / 5
    return Atoms(
        "Ar7",
        np.concatenate(
            [[[0, 0, 0.5], [0, 0, -0.5]], 0.85 * np.stack([np.cos(ring), np.sin(ring), 0 * ring], 1)]
        ),
    )


def capped_octahedron() -> Atoms:
    corners = np.concatenate([np.eye(3), -np.eye(3)]) / np.sqrt(2)
    return Atoms("Ar7", np.concatenate([corners, [[0.9, 0.9, 0.9]]]))


def turned(atoms: Atoms, seed: int = 0) -> Atoms:
    """Shuffled, turned and shifted."""
    random = np.random.default_rng(seed)
    other = atoms[random.permutation(len(atoms))]
    other.rotate(*random.uniform(0, 180, 1), random.normal(size=3))
    other.positions += random.normal(size=3)
    return other


class Files:
    """Writes structures, and makes paths between them."""

    def __init__(self, folder: FilePath) -> None:
        self.folder, self.count = folder, 0

    def __call__(self, atoms: Atoms | list[Atoms], suffix: str = ".extxyz") -> dict[str, Any]:
        self.count += 1
        file = self.folder / f"{self.count}{suffix}"
        write(file, atoms)
        return {"file": str(file)}

    def path(
        self, first: Atoms, last: Atoms, *, system: Atoms | None = None, potential: Any = None, **changes: Any
    ) -> Path:
        initial = self(first)
        spec = initial if system is None else self(system)
        model = AtomsModel(system=SystemSpec(**spec), potential=potential or LennardJones())
        given: dict[str, Any] = {"model": model, "initial": initial, "final": self(last)}
        return Path(**(given | changes))


@pytest.fixture
def files(tmp_path: FilePath) -> Files:
    return Files(tmp_path)


def refused(path: Path, message: str) -> None:
    with pytest.raises(InputError, match=message):
        path.check()


# -- alignment ---------------------------------------------------------------------------------------------------------


def test_minima_in_any_order_and_orientation_give_one_path(files: Files) -> None:
    for seed in (1, 2):
        ends = turned(bipyramid(), seed), turned(capped_octahedron(), 10 + seed)
        found = files.path(*ends, band=BandSettings(images=3)).run()
        summary = found.summary()
        assert found.converged and summary["negative_modes"] == 1 and summary["connects_the_ends"] is True
        assert found.barrier_forward == pytest.approx(LJ7, abs=1e-5)
        assert "final: " in summary["alignment"] and " instead of " in summary["alignment"]


def test_ends_that_lie_well_are_left_as_they_are(files: Files) -> None:
    first = files.path(bipyramid(), turned(capped_octahedron()), saddle=Saddle(modes=0)).run()
    start, end = (Atoms("Ar7", one.numpy()) for one in (first.path[0], first.path[-1]))
    again = files.path(start, end, ends=Ends(relax=False, fmax=1e-3), saddle=Saddle(modes=0)).run()
    assert again.alignment == "" and again.summary()["alignment"] is None
    assert torch.allclose(again.path[-1], first.path[-1], rtol=0, atol=1e-7)


def test_one_minimum_is_no_two_ends(files: Files) -> None:
    one, swapped = bipyramid(), bipyramid()[[1, 0, 2, 3, 4, 5, 6]]
    moved = bipyramid()
    moved.rotate(43, "x")
    moved.positions += 1.0
    refused(
        files.path(one, moved),
        r"are the same minimum but for its place and order \(turned by 43 degrees\).*set `ends: {align: none}`",
    )
    refused(files.path(one, swapped), r"the same minimum but for its place and order \(\d atoms exchanged")
    refused(files.path(one, turned(one)), "are the same minimum")
    # a turn is no path whatever the order means; an exchange is one
    refused(files.path(one, moved, ends=Ends(align="none")), r"the same minimum.*turned by 43")
    files.path(one, swapped, ends=Ends(align="none")).check()
    # what becomes one minimum only as it is relaxed
    shaken = turned(one)
    shaken.rattle(0.1, seed=0)
    with pytest.raises(InputError, match="are the same minimum"):
        files.path(one, shaken).run()


def test_a_file_with_both_ends_needs_an_index(files: Files) -> None:
    both = files([bipyramid(), capped_octahedron()])
    given = {"initial": both, "final": both}
    refused(
        files.path(bipyramid(), bipyramid(), **given),
        r"several structures the last is taken: give `index: 0`",
    )
    files.path(bipyramid(), bipyramid(), **(given | {"initial": both | {"index": 0}})).check()


def test_kinds_of_atoms_in_another_order(files: Files) -> None:
    start, end = bipyramid(), capped_octahedron()
    start.symbols[:] = ["Kr", "Ar", "Ar", "Ar", "Ar", "Kr", "Ar"]
    end.symbols[:] = ["Ar", "Ar", "Kr", "Ar", "Ar", "Ar", "Kr"]
    files.path(start, end).check()
    message = r"atom 0 is Ar, in the system it is Kr .*put the atoms of one in the order of the other"
    refused(files.path(start, end, ends=Ends(align="none")), message)


def test_mirror_images_are_taken_where_they_are_asked_for(files: Files) -> None:
    """Of a chiral structure, shaken, the mirror image."""
    start = Atoms("Ar8", 1.5 * np.random.default_rng(5).normal(size=(8, 3)))
    end = start.copy()
    end.rattle(0.1, seed=1)
    end.positions *= [1.0, 1.0, -1.0]
    lengths = []
    for align in ("auto", "mirror"):
        path = files.path(start, end, ends=Ends(align=align))
        a, b = path.path_ends.read()
        route = path.path_ends.route(a, b)
        lengths.append(float(torch.linalg.vector_norm(route.end - a)))
        assert ("mirrored" in route.words) == (align == "mirror")
        assert ("`ends: {align: mirror}` takes it" in path.path_ends.hint(a, route.end)) == (align == "auto")
    assert lengths[1] < 0.6 < 1.2 < lengths[0]


def test_key_images_are_aligned_to_what_comes_before(files: Files) -> None:
    straight = files.path(bipyramid(), turned(capped_octahedron()), saddle=Saddle(modes=0)).run()
    middle = Atoms("Ar7", straight.path[3].numpy())
    path = files.path(
        bipyramid(),
        turned(capped_octahedron()),
        start=PathStart(keys=[files(turned(middle, 3))]),
        saddle=Saddle(modes=0),
    )
    found = path.run()
    assert "key image 0: " in found.alignment and "final: " in found.alignment
    assert found.barrier_forward == pytest.approx(LJ7, abs=1e-4)
    assert found.gradient_evaluations <= straight.gradient_evaluations


def test_what_was_aligned_survives_a_stop(files: Files) -> None:
    path = files.path(bipyramid(), turned(capped_octahedron()), fmax=0.05, saddle=Saddle(modes=0))
    whole, context = path.run(), Recorder(pauses=5)
    with pytest.raises(Preempted):
        path.run(context)
    again = path.run(Resumed(context))
    assert again.summary() | {"wall_s": 0} == whole.summary() | {"wall_s": 0}
    assert torch.equal(again.path, whole.path)


# -- slabs -------------------------------------------------------------------------------------------------------------


def hop() -> tuple[Atoms, Atoms]:
    """An adatom on a slab of two layers, the lower one fixed, and its next place."""
    slab = fcc100("Pt", (3, 3, 2), vacuum=6.0, periodic=True)
    add_adsorbate(slab, "Pt", 1.9, "hollow", offset=(1, 1))
    slab.set_constraint(FixAtoms(range(9)))
    slab.info.clear()
    end = slab.copy()
    end.positions[-1, 0] += 2.77
    return slab, end


PLATINUM = Morse(epsilon=0.71, rho0=4.65, r0=2.897, cutoff=6.0)


def test_like_atoms_of_a_slab_that_changed_places(files: Files) -> None:
    start, end = hop()
    settings: dict[str, Any] = {"potential": PLATINUM, "band": BandSettings(images=3), "fmax": 0.02}
    plain = files.path(start, end, **settings).run()
    order = [*range(9), 11, 10, 9, *range(12, 19)]
    swapped = end[order]
    swapped.set_constraint(end.constraints)
    found = files.path(start, swapped, **settings).run()
    assert "2 atoms exchanged (a way of" in found.alignment
    assert found.barrier_forward == pytest.approx(plain.barrier_forward, abs=1e-6)
    assert plain.alignment == "" and plain.summary()["connects_the_ends"] is True


def test_two_ends_of_a_hop_are_told_apart(files: Files) -> None:
    """They are one structure, shifted: a saddle whose two ways down lead to one of them does not connect them."""
    start, end = hop()
    path = files.path(start, end, potential=PLATINUM, band=BandSettings(images=1, climb=0), fmax=0.02)
    start, end, _ = path.path_ends.relaxed(PathWatch(Context(), "", images=1, evaluations=1, paths=1).of_ends)
    landscape = path.landscape(1)
    mode = torch.zeros_like(start)
    mode[-1, 2] = 1.0
    found = connect(landscape, start, mode, minima=torch.stack([start, end]), displacement=0.01, verify=False)
    assert found.matches[0].tolist() == [[True, False], [True, False]] and not bool(found.joins[0])


def test_fixed_atoms_must_be_those_of_the_system(files: Files) -> None:
    start, end = hop()
    bare = end.copy()
    bare.set_constraint()
    message = (
        r"2\.extxyz: atoms 0 \(Pt\), 1 \(Pt\), .* and 4 more: free there and fixed in the system; .*FixAtoms"
    )
    refused(files.path(start, bare, potential=PLATINUM), message)
    more = end.copy()
    more.set_constraint(FixAtoms(range(10)))
    refused(files.path(start, more, potential=PLATINUM), r"atom 9 \(Pt\): fixed there and free in the system")
    other = end.copy()
    other.set_constraint(FixAtoms(range(1, 10)))
    refused(
        files.path(start, other, potential=PLATINUM),
        r"atoms 0 \(Pt\), 9 \(Pt\): fixed in one and free in the other",
    )
    refused(files.path(start, end, system=bare, potential=PLATINUM), "fixed there and free in the system")
    plain = files.path(start, end, potential=PLATINUM)
    free = plain.replace(final=files(bare, ".cif"))  # a format that knows no constraints
    free.check()


def test_a_slab_whose_atoms_come_in_another_order(files: Files) -> None:
    """Kinds, fixed atoms and places are found again, whatever the order of the file."""
    start, end = hop()
    for atoms in (start, end):
        atoms.symbols[[4, 12, 18]] = "Au"
    shuffled = end[np.random.default_rng(0).permutation(len(end))]
    gold = LennardJones(r0=2.9, cutoff=6.0)
    path = files.path(start, shuffled, potential=gold)
    a, b = path.path_ends.read()
    route = path.path_ends.route(a, b)
    assert np.allclose(route.end, end.positions, atol=1e-7)
    less = shuffled.copy()
    less.set_constraint(FixAtoms(shuffled.constraints[0].index[1:]))
    refused(
        files.path(start, less, potential=gold),
        r"extxyz: atoms of (Pt|Au) \(1\): free there and fixed in the system; a path needs the same fixed atoms",
    )


def test_mirror_images_of_what_is_fixed_or_periodic_are_no_states(files: Files) -> None:
    start, end = hop()
    mirror = files.path(start, end, potential=PLATINUM, ends=Ends(align="mirror"))
    refused(mirror, "mirror images are as good only of free clusters")
    other = Path(model=MullerBrown(), initial={"name": "A"}, final={"name": "B"}, ends=Ends(align="mirror"))
    refused(other, "MullerBrown has no mirror images to align: take `align: auto`")


def test_fixed_atoms_with_two_places(files: Files) -> None:
    start, end = hop()
    end.positions[2] += [0.0, 0.3, 0.4]
    end.positions[3] += [0.0, 0.0, 0.1]
    refused(
        files.path(start, end, potential=PLATINUM),
        r"atom 2 \(Pt\) is fixed, but its places in `initial` \(1\.extxyz\) and `final` \(2\.extxyz\) "
        r"are 0\.5 apart \(1 more are off\)",
    )


# -- contacts ----------------------------------------------------------------------------------------------------------


def test_atoms_that_would_meet_go_around_each_other(files: Files) -> None:
    one, swapped = bipyramid(), bipyramid()[[1, 0, 2, 3, 4, 5, 6]]
    order = Ends(align="none")
    path = files.path(one, swapped, ends=order)
    a, b = path.path_ends.read()
    route = path.path_ends.route(a, b)
    band = path.band.make(path.landscape(1), a, b)
    x, said = path.first(band, route, None)
    assert "begins by IDPP, for on the straight way atoms 0 (Ar) and 1 (Ar) are 0 apart in image 3" in said[0]
    assert float(band.inner.evaluate(x).energy.max()) < 100.0
    straight = files.path(one, swapped, ends=order, start=PathStart(way="straight"))
    refused(straight, r"atoms 0 \(Ar\) and 1 \(Ar\) are 0 apart in image 3.*take `start: {way: idpp}`")
    near = straight.replace(band=BandSettings(images=4))
    band = near.band.make(near.landscape(1), a, b)
    _, said = near.first(band, route, None)
    assert len(said) == 1 and "if the band does not converge, take" in said[0]


def test_no_contact_no_word(files: Files) -> None:
    path = files.path(bipyramid(), turned(capped_octahedron()))
    a, b = path.path_ends.read()
    route = path.path_ends.route(a, b)
    x, said = path.first(path.band.make(path.landscape(1), a, route.end), route, None)
    assert said == ()
    plain = path.replace(start=PathStart(way="straight"))
    again, _ = plain.first(path.band.make(path.landscape(1), a, route.end), route, None)
    assert torch.equal(x, again)


def test_messages_name_the_file_of_an_end(files: Files) -> None:
    path = files.path(bipyramid(), capped_octahedron(), ends=Ends(relax=False))
    refused(path, r"`initial` \(1\.extxyz\) is not a minimum: the force on atom \d \(Ar\)")
    path = files.path(bipyramid(), capped_octahedron(), ends=Ends(evaluations=2))
    with pytest.raises(InputError, match=r"`initial` \(\d\.extxyz\) did not relax to a force of"):
        path.run()


def test_two_frames_are_no_path(files: Files) -> None:
    both = files([bipyramid(), capped_octahedron()])
    path = files.path(bipyramid(), capped_octahedron(), start=PathStart(file=both["file"]))
    refused(path, "has 2 images.*give a path with images between")

"""Files of MLIP: reference energies, forces and stresses of MLIP-2, and what is wrong with a file."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from mlopt.core import InputError
from mlopt.core.structures import read_dataset
from mlopt.potentials import Mtp
from mlopt.potentials.fitted.mtp.files import read_mtp

pytest.importorskip("numba")

GOLDEN = Path(__file__).resolve().parents[4] / "shared" / "data" / "mtp_golden"
#: levels of each crystal, and elements of molecules
CRYSTALS = {"cubic": ["Cu"], "noncubic": ["Cu"], "multi": ["Cu", "Ag", "Au"]}
POTENTIALS = sorted(path.parent for path in GOLDEN.rglob("pot.mtp") if list(path.parent.glob("out*.cfg")))
needs_data = pytest.mark.skipif(
    not POTENTIALS, reason="the reference data of MLIP are not there (shared/data/mtp_golden)"
)


def elements_of(folder: Path) -> list[str]:
    kind = folder.relative_to(GOLDEN).parts[0]
    return CRYSTALS[kind] if kind in CRYSTALS else ["H", "C"][: read_mtp(folder / "pot.mtp").n_species]


@needs_data
def test_energies_forces_and_stresses_are_those_of_mlip() -> None:
    """Energies to 1e-9, forces and PlusStress to the digits that MLIP has printed, at every level."""
    assert len(POTENTIALS) > 30
    for folder in POTENTIALS:
        elements = elements_of(folder)
        data = read_dataset(next(iter(folder.glob("out*.cfg"))), elements=elements)
        found = Mtp(file=str(folder / "pot.mtp"), elements=elements).evaluate(data.systems, stress=True)
        assert float(((found.energy - data.energy) / data.energy).abs().max()) < 1e-9, folder
        assert float((found.force - data.force).abs().max()) < 5.1e-7, folder
        if bool(data.with_stress.any()):
            plus = (found.stress - data.stress) * data.systems.volume[:, None, None]
            assert float(plus.abs().max()) < 5.1e-6, folder


def small(folder: Path) -> Path:
    """A file of our own, of the level 6."""
    potential = Mtp(elements=["Si"], level=6, shortest=1.8, cutoff=4.0, pair_functions=0)
    theta = torch.linspace(-1.0, 1.0, potential.basis.n_parameters, dtype=torch.float64)
    path = folder / "small.mtp"
    potential.with_theta(theta).write_mtp(str(path))
    return path


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("MTP\n", "MPT\n", "does not begin with MTP"),
        (
            "RBChebyshev",
            "RBShapeev",
            "radial functions of the type 'RBShapeev' are not known; mlopt reads RBChebyshev",
        ),
        (
            "species_count = 1",
            "species_count = 2",
            "radial_coeffs has 3 lines, where 2 species and 2 functions make 12",
        ),
        (
            "scaling = 1.0",
            "magnetic_basis_type = BChebyshev",
            r"depends on magnetic moments \(magnetic_basis_type\)",
        ),
        ("min_dist = 1.8", "min_dist = 9.8", "the shortest distance 9.8 must be below the cutoff 4"),
        ("species_coeffs = {", "species_coeffs = {1.0, ", "species_coeffs must have 1 numbers, got 2"),
        ("alpha_index_times_count = ", "alpha_index_times_count = 9", "alpha_index_times has"),
        (
            "alpha_moment_mapping = {0",
            "alpha_moment_mapping = {99",
            "alpha_moment_mapping names values that are not",
        ),
        (
            "alpha_index_basic = {{0, 0",
            "alpha_index_basic = {{7, 0",
            "alpha_index_basic names radial functions",
        ),
    ],
)
def test_what_is_wrong_is_named(old: str, new: str, message: str, tmp_path: Path) -> None:
    path = small(tmp_path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        read_mtp(path)


def test_a_damaged_file_is_an_error_or_a_potential(tmp_path: Path) -> None:
    path = small(tmp_path)
    text, draw = path.read_text(), random.Random(0)
    for _ in range(150):
        place, kind = draw.randrange(len(text)), draw.randrange(3)
        changed = {
            0: text[:place],
            1: text[:place] + draw.choice("-e.{}9 \n") + text[place + 1 :],
            2: text[:place] + text[place + draw.randrange(1, 60) :],
        }[kind]
        path.write_text(changed)
        try:
            read_mtp(path)
        except InputError as error:
            assert str(path) in str(error) or "radial functions" in str(error)


def test_species_are_named_in_the_order_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has 1 species, numbered from 0; name them by `elements`"):
        _ = Mtp(file=str(small(tmp_path)), elements=["Si", "Ge"]).parameters


def test_the_active_set_of_an_almtp_is_skipped(tmp_path: Path) -> None:
    """Text and then numbers as bytes, as MLIP-3 appends them; what is before them is the potential."""
    path = small(tmp_path)
    weights = "energy_weight 1\nforce_weight 0\nstress_weight 0\nsite_en_weight 0\nweight_scaling 2\n#"
    active = tmp_path / "small.almtp"
    active.write_bytes(
        path.read_bytes() + b"#MVS_v1.1\n" + weights.encode() + bytes(range(256)) * 8 + b"\n#\n"
    )
    one, other = (Mtp(file=str(each), elements=["Si"]) for each in (path, active))
    assert torch.equal(one.parameters, other.parameters)


def test_an_active_set_is_not_written(tmp_path: Path) -> None:
    potential = Mtp(file=str(small(tmp_path)), elements=["Si"])
    with pytest.raises(InputError, match=r"an \.almtp holds the active set of MLIP-3 .* write an \.mtp"):
        potential.write_mtp(str(tmp_path / "other.almtp"))


def test_keys_as_motep_writes_them_are_read(tmp_path: Path) -> None:
    path = small(tmp_path)
    one, text = read_mtp(path), path.read_text()
    for ours, theirs in (("min_dist", "min"), ("max_dist", "max"), ("radial_basis_size", "size")):
        text = text.replace(ours, theirs)
    path.write_text(text)
    other = read_mtp(path)
    assert (other.radial.shortest, other.radial.cutoff) == (one.radial.shortest, one.radial.cutoff)
    assert (other.radial.coefficients == one.radial.coefficients).all()

"""Moment tensor potentials as potentials: the contract, cells of every kind, files, and refusals."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase.build import bulk
from pydantic import ValidationError

from mlopt.core import Dataset, InputError, Systems
from mlopt.core.files.weights import TRAINING, save_weights
from mlopt.core.testing import check_fittable
from mlopt.potentials import Mtp

pytest.importorskip("numba")


def silicon() -> Systems:
    """A cell smaller than the cutoff, a skewed one, a slab and a cluster."""
    images = [
        bulk("Si", cubic=True),
        bulk("Si") * (2, 2, 2),
        bulk("Si", cubic=True) * (1, 1, 2),
        bulk("Si") * 2,
    ]
    for seed, atoms in enumerate(images):
        atoms.rattle(0.1, seed=seed)
    strain = 0.05 * np.random.default_rng(0).normal(size=(3, 3))
    images[1].set_cell(images[1].cell.array @ (np.eye(3) + strain), scale_atoms=True)
    images[2].set_pbc([True, True, False])
    images[3].set_pbc(False)
    return Systems.from_atoms(images)


def alloy() -> Systems:
    atoms = bulk("Cu", cubic=True)
    atoms.symbols[1:3] = "Au"
    atoms.rattle(0.1, seed=1)
    return Systems.from_atoms(atoms)


CASES: dict[str, tuple[dict[str, Any], Systems]] = {
    "level": ({"level": 10, "elements": ["Si"]}, silicon()),
    "level alone": ({"level": 8, "elements": ["Si"], "pair_functions": 0}, silicon()),
    "degrees": ({"degrees": [8, 7, 7], "elements": ["Si"], "pair_cutoff": 6.0}, silicon()),
    "alloy": ({"degrees": [5, 4], "elements": ["Au", "Cu"], "pair_functions": 3}, alloy()),
    "alloy by level": ({"level": 6, "elements": ["Cu", "Au"], "pair_functions": 2}, alloy()),
}


@pytest.mark.parametrize("case", CASES)
def test_contract(case: str) -> None:
    settings, systems = CASES[case]
    potential = Mtp(shortest=1.8, cutoff=4.0, **settings)
    systems = systems.select([index for index in range(len(systems)) if bool(systems.volume[index] > 0)])
    check_fittable(potential, systems, scale=0.01)


def fitted(**settings: Any) -> Mtp:
    """Coefficients of some size, as a fit leaves them."""
    potential = Mtp(shortest=1.8, cutoff=4.0, **settings)
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(potential.basis.n_parameters, generator=generator, dtype=torch.float64)
    return potential.with_theta(0.01 * noise)


def test_compiled_forces_are_those_of_autograd_in_every_cell() -> None:
    potential, systems = fitted(elements=["Si"], degrees=[8, 7, 7]), silicon()
    compiled = potential.evaluate(systems)
    differentiated = potential.evaluate(systems.with_pos(systems.pos.clone().requires_grad_(True)))
    torch.testing.assert_close(compiled.energy, differentiated.energy.detach(), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(compiled.force, differentiated.force.detach(), rtol=1e-10, atol=1e-10)
    summed = systems.segments.sum(compiled.row_energy)
    torch.testing.assert_close(summed, compiled.energy, rtol=1e-12, atol=0)


@pytest.mark.parametrize("case", ["level", "degrees", "alloy"])
def test_forces_are_differences_of_energies_to_1e_8(case: str) -> None:
    """By a formula of the fourth order, for its errors and those of rounding are smaller than that."""
    settings, systems = CASES[case]
    potential, systems = fitted(**settings), systems.select([0])
    step, count = 1e-3, systems.pos.numel()
    moves = step * torch.eye(count, dtype=torch.float64).reshape(count, -1, 3)
    energy = {
        k: potential.evaluate(systems.repeat(count).with_pos((systems.pos + k * moves).reshape(-1, 3))).energy
        for k in (-2, -1, 1, 2)
    }
    slope = (8.0 * (energy[1] - energy[-1]) - (energy[2] - energy[-2])) / (12.0 * step)
    found = potential.evaluate(systems).force
    scale = max(1.0, float(found.abs().max()))
    torch.testing.assert_close(found, -slope.reshape(-1, 3), rtol=0, atol=1e-8 * scale)


def test_results_do_not_depend_on_threads() -> None:
    potential, systems = fitted(elements=["Si"], level=10), silicon().repeat(40)
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            one, rows = potential.evaluate(systems, stress=True), potential.design(systems, stress=True)
            found.append((one.energy, one.force, one.stress, rows.energy, rows.force, rows.stress))
    finally:
        torch.set_num_threads(before)
    for parts in zip(*found, strict=True):
        assert all(torch.equal(parts[0].nan_to_num(), other.nan_to_num()) for other in parts[1:])


def test_a_position_that_is_not_finite_spoils_its_system_alone() -> None:
    potential, systems = fitted(elements=["Si"], level=8), silicon()
    pos = systems.pos.clone()
    pos[0, 0] = torch.nan
    found = potential.evaluate(systems.with_pos(pos))
    assert found.energy.isnan().tolist() == [True, False, False, False]
    assert torch.equal(found.force[8:], potential.evaluate(systems).force[8:])


@pytest.mark.parametrize("case", ["level", "degrees", "alloy", "alloy by level"])
def test_an_mtp_file_gives_the_same_energies(case: str, tmp_path: Path) -> None:
    settings, systems = CASES[case]
    potential = fitted(
        **{"pair_cutoff": None, **settings, **({"pair_cutoff": 4.0} if case == "degrees" else {})}
    )
    path = tmp_path / "pot.mtp"
    potential.write_mtp(str(path))
    again = Mtp(file=str(path), elements=settings["elements"])
    one, other = potential.evaluate(systems, stress=True), again.evaluate(systems, stress=True)
    torch.testing.assert_close(one.energy, other.energy, rtol=1e-13, atol=1e-12)
    torch.testing.assert_close(one.force, other.force, rtol=0, atol=1e-12)


def test_what_came_of_a_file_of_mlip_is_kept_as_one(tmp_path: Path) -> None:
    path = tmp_path / "pot.mtp"
    fitted(elements=["Si"], level=6).write_mtp(str(path))
    read = Mtp(file=str(path), elements=["Si"])
    with pytest.raises(InputError, match=r"which a card cannot name; keep it as an \.mtp, by `write_mtp`"):
        read.save(str(tmp_path / "si.safetensors"), {})
    other = read.with_theta(2.0 * read.parameters)
    other.write_mtp(str(tmp_path / "other.mtp"))
    again = Mtp(file=str(tmp_path / "other.mtp"), elements=["Si"])
    torch.testing.assert_close(again.parameters, other.parameters, rtol=0, atol=0)


def test_two_cutoffs_do_not_fit_into_an_mtp_file(tmp_path: Path) -> None:
    potential = fitted(elements=["Si"], level=8, pair_cutoff=5.0)
    with pytest.raises(InputError, match=r"an \.mtp file has one cutoff, and this potential has 4, 5"):
        potential.write_mtp(str(tmp_path / "pot.mtp"))


def test_weights_bring_their_settings(tmp_path: Path) -> None:
    path, potential = tmp_path / "si.safetensors", fitted(elements=["Si"], degrees=[7, 6], pair_functions=4)
    training = dict.fromkeys(
        ("task_family", "horizon", "estimator", "seeds", "cost", "results", "command"), "test"
    )
    potential.save(str(path), training)
    again = Mtp(weights=str(path))
    assert again.degrees == [7, 6] and again.cutoff == 4.0 and again.shortest == 1.8
    assert torch.equal(again.evaluate(silicon()).energy, potential.evaluate(silicon()).energy)
    with pytest.raises(ValidationError, match=r"were trained with cutoff: 4\.0, not 5\.0; leave it out"):
        Mtp(weights=str(path), cutoff=5.0)


def test_what_is_not_given_comes_from_the_data() -> None:
    data = Dataset(alloy())
    prepared = Mtp(level=6).prepared(data)
    assert prepared.elements == ["Cu", "Au"]
    distances = torch.pdist(alloy().pos)
    assert 0.8 < prepared.shortest / float(distances.min()) <= 0.95 + 1e-6
    with pytest.raises(InputError, match="no two atoms of the data are nearer than 1"):
        Mtp(level=6, cutoff=1.0).prepared(data)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"level": 7}, "there are the levels 2, 4, ..., 28, and no 7"),
        ({"level": 8, "degrees": [8]}, "give `level` or `degrees`, not both"),
        ({"degrees": [8, 7, 6, 5]}, "give one to three degrees between 2 and 40"),
        ({"elements": ["Si", "Xx"]}, "'Xx' is no element"),
        ({"elements": ["Si", "Si"]}, "each element is named once"),
        ({"file": "a.mtp", "level": 8}, "a `file` brings its own functions"),
        ({"file": "a.mtp", "chebyshev": 8}, "leave out `weights`, `level`, `degrees`, `chebyshev`, `radial`"),
        ({"radial": [[1.0, 0.0]]}, "`radial` lists numbers, not all zero: [centre][neighbour][mu][degree]"),
        ({"radial": [[[[1.0], [1.0, 2.0]]]]}, "`radial` lists numbers"),
        ({"radial": [[[[0.0, 0.0]]]]}, "`radial` lists numbers"),
        ({"radial": "wide"}, "`radial` lists numbers"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)):
        Mtp(**settings)


def test_radial_functions_of_ones_own() -> None:
    potential = fitted(elements=["Si"], level=8, chebyshev=3)
    shares = [[[[2.0, 0.0, 0.0], [0.0, 0.5, 0.0]]]]
    same = potential.replace(radial=shares).evaluate(silicon()).energy  # their scale plays no part
    torch.testing.assert_close(same, potential.evaluate(silicon()).energy, rtol=1e-12, atol=0)
    assert potential.nonlinear is not None and potential.nonlinear.tolist() == [0.0, 0.0, 0.0]
    moved = potential.with_nonlinear(torch.tensor([0.3, 0.2, 0.1], dtype=torch.float64))
    assert moved.radial == [[[[1.0, 0.3, 0.2], [0.0, 1.0, 0.1]]]]
    assert Mtp(**moved.config()) == moved
    assert float((moved.evaluate(silicon()).energy - same).abs().min()) > 1e-4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"chebyshev": 1}, "mtp: 2 radial functions cannot be made of 1 degrees; raise `chebyshev`"),
        (
            {"radial": [[[[1.0, 0.0, 0.0]]]]},
            "has the shape (1, 1, 1, 3), and 1 species with 2 radial functions of 3",
        ),
        ({"radial": [[[[1.0, 0.0], [0.0, 1.0]]]], "chebyshev": 3}, "of 3 degrees need (1, 1, 2, 3)"),
    ],
)
def test_radial_functions_that_do_not_fit(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        _ = Mtp(shortest=1.8, elements=["Si"], level=8, **settings).basis


def test_new_radial_functions_keep_fitted_coefficients(tmp_path: Path) -> None:
    potential = fitted(elements=["Si"], level=8)
    potential.save(str(tmp_path / "si.safetensors"), dict.fromkeys(TRAINING, "test"))
    read = Mtp(weights=str(tmp_path / "si.safetensors"))
    assert read.nonlinear is not None
    moved = read.with_nonlinear(read.nonlinear + 0.1)
    assert torch.equal(moved.parameters, potential.parameters) and Mtp(**moved.config()) == moved


def test_a_potential_that_was_never_fitted_says_what_is_missing() -> None:
    with pytest.raises(InputError, match="nothing says where the radial functions begin"):
        Mtp(elements=["Si"]).evaluate(silicon())
    with pytest.raises(InputError, match="nothing says which species there are"):
        Mtp(shortest=2.0).evaluate(silicon())
    with pytest.raises(InputError, match="Mtp has no parameters for Cu, Au; it knows Si"):
        Mtp(shortest=2.0, elements=["Si"]).check(alloy())


def test_a_card_of_another_basis_is_refused(tmp_path: Path) -> None:
    training = dict.fromkeys(
        ("task_family", "horizon", "estimator", "seeds", "cost", "results", "command"), "test"
    )
    path, potential = tmp_path / "si.safetensors", fitted(elements=["Si"], degrees=[7, 6])
    settings = {name: one for name, one in potential.config().items() if name not in ("weights", "theta")}
    save_weights(str(path), torch.zeros(9).double(), "mtp", settings, training)
    with pytest.raises(
        InputError, match=r"9 parameters, and the potential Mtp has \d+ with these settings: .* fit anew"
    ):
        _ = Mtp(weights=str(path)).parameters
    save_weights(str(path), torch.zeros(9).double(), "learn2hop", {}, training)
    with pytest.raises(ValidationError, match="learn2hop"):
        Mtp(weights=str(path))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"elements": ["Au"]}, "mtp: the data have Cu, which `elements` does not name: Au"),
        ({"elements": ["Ag", "Au", "Cu"]}, "`elements` names Ag, of which no structure has any"),
        ({"shortest": 2.5}, r"two atoms of the data are 2\.\d+ apart, nearer than `shortest`, 2.5"),
    ],
)
def test_data_that_do_not_fit_the_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Mtp(level=6, cutoff=4.0, **settings).prepared(Dataset(alloy()))


@pytest.mark.parametrize("rule", [{"degrees": [40, 40, 40]}, {"level": 28}], ids=["degrees", "level"])
def test_a_basis_that_is_too_large_is_not_even_searched_for(rule: dict[str, Any]) -> None:
    elements = ["Cu", "Ag", "Au", "Ni"]
    with pytest.raises(
        InputError, match=r"with 4 species make about \d\S* functions of each, and 20,000 are"
    ):
        _ = Mtp(shortest=1.8, elements=elements, **rule).basis


def test_a_cutoff_beyond_the_data_is_doubted() -> None:
    pair = Systems.cluster([29, 79]).with_pos(torch.tensor([[0.0, 0, 0], [0, 0, 2.5]]).double())
    data = Dataset(Systems.concatenate([pair, pair.with_pos(1.1 * pair.pos)]))
    told = Mtp(level=6, cutoff=6.0).prepared(data).doubts(data)
    assert len(told) == 1 and "between 2.75 and 6 angstrom apart" in told[0]
    assert "Lower `cutoff` to about 2.8" in told[0] and Mtp(level=6, cutoff=3.0).doubts(data) == []
    crystal = Dataset(alloy())  # periodic images count
    assert Mtp(level=6, cutoff=6.0).prepared(crystal).doubts(crystal) == []

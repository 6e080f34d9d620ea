"""Files of weights: found by name or path, refused where they do not fit, are foreign or damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from mlopt.core.errors import ConfigError, InputError
from mlopt.core.files import weights
from mlopt.core.files.weights import TRAINING, load_weights, read_card, save_weights, shipped
from mlopt.core.plugins.plugin import build
from mlopt.optimizers.learned.hop.optimizer import LearnedHopping
from mlopt.optimizers.learned.step.optimizer import Learned, LearnedFamily

SAID = {name: f"the {name}" for name in TRAINING}


@pytest.fixture
def family() -> LearnedFamily:
    return LearnedFamily(species=["Ag", "Au"], decays=[0.9])


@pytest.fixture
def path(family: LearnedFamily, tmp_path: Path) -> Path:
    found = tmp_path / "alloy.safetensors"
    save_weights(found, family.start(1), "learned", family.settings(), SAID)
    return found


def test_a_file_brings_its_settings(family: LearnedFamily, path: Path) -> None:
    learned = Learned(weights=str(path))
    assert learned.settings() == family.settings() and learned.numbers == (47, 79)
    assert torch.equal(learned.parameters, family.start(1))
    assert build(Learned, learned.config()) == learned
    card = read_card(str(path), "learned")
    assert card.training == SAID and card.parameters == len(family.start(1))
    assert json.loads(path.with_suffix(".json").read_text())["training"]["horizon"] == "the horizon"


def test_training_starts_from_weights(family: LearnedFamily, path: Path) -> None:
    again = build(LearnedFamily, {"weights": str(path)})
    assert torch.equal(again.start(), load_weights(str(path), "learned"))
    assert again.settings() == family.settings() and again.decays == family.decays
    with pytest.raises(ConfigError, match="were trained with hidden"):
        build(LearnedFamily, {"weights": str(path), "hidden": 8})


def test_a_file_is_found_from_any_folder(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    learned = build(Learned, {"weights": f"./{path.name}"})
    assert learned.config()["weights"] == str(path)


def test_weights_that_ship_have_names(
    family: LearnedFamily, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "folders", lambda: (tmp_path,))
    save_weights(tmp_path / "lj-small.safetensors", family.start(2), "learned", family.settings(), SAID)
    assert shipped() == ["lj-small"]
    assert torch.equal(Learned(weights="lj-small").parameters, family.start(2))
    with pytest.raises(InputError, match=r"no weights are called 'lj-large'; these ship: lj-small"):
        build(Learned, {"weights": "lj-large"})


def test_every_shipped_file_is_sound() -> None:
    for name in shipped("learned"):
        learned = Learned(weights=name)
        assert len(learned.parameters) == learned.architecture.size
    for name in shipped("learned-hopping"):
        search = LearnedHopping(weights=name)
        assert len(search.parameters) == search.size
    every = shipped("learned") + shipped("learned-hopping")
    cards = [path.stem for folder in weights.folders() for path in folder.glob("*.json")]
    assert sorted(every) == shipped() == sorted(cards)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sines": False}, r"were trained with sines: True, not False"),
        ({"decays": [0.5]}, r"were trained with decays: \[0.9\], not \[0.5\]"),
        ({"species": ["Ag"]}, r"tell 2 species apart \(Ag, Au\), and 1 are given \(Ag\)"),
        ({"species": None}, r"tell 2 species apart \(Ag, Au\), and 0 are given"),
        ({"hidden": 16}, r"were trained with hidden: 32, not 16"),
    ],
)
def test_other_inputs_are_refused(path: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(Learned, {"weights": str(path), **given})


def test_as_many_other_species_are_taken(path: Path) -> None:
    """A network trained on silver and gold may be tried on palladium and platinum."""
    assert Learned(weights=str(path), species=["Pd", "Pt"]).numbers == (46, 78)


def test_damage_is_seen(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for place in (3, len(data) // 2, len(data) - 1):
        changed = bytearray(data)
        changed[place] ^= 1
        path.write_bytes(changed)
        with pytest.raises(InputError, match=r"SHA-256 differs"):
            build(Learned, {"weights": str(path)})
    path.write_bytes(data[:-8])
    with pytest.raises(InputError, match=r"SHA-256 differs"):
        load_weights(str(path), "learned")


def changed_card(path: Path, **changes: Any) -> None:
    card = path.with_suffix(".json")
    card.write_text(json.dumps(json.loads(card.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "mlopt weights 2"}, "is not of the format 'mlopt weights 1' but 'mlopt weights 2'"),
        ({"optimizer": "learned-hopping"}, "are for the optimizer 'learned-hopping', not for 'learned'"),
        ({"settings": None}, "says nothing sound about 'settings'"),
        ({"parameters": "many"}, "says nothing sound about 'parameters'"),
        ({"settings": {"decays": [0.9], "cutoff": 1e999}}, "Infinity is no number of JSON"),
    ],
)
def test_cards_are_checked(path: Path, changes: dict[str, Any], message: str) -> None:
    changed_card(path, **changes)
    with pytest.raises(InputError, match=message):
        read_card(str(path), "learned")


def test_a_card_that_lies_about_theta(path: Path) -> None:
    changed_card(path, parameters=7)
    with pytest.raises(InputError, match=r"where its card promises theta \(7,\)"):
        load_weights(str(path), "learned")


def test_a_card_with_settings_of_another_network(path: Path) -> None:
    told = json.loads(path.with_suffix(".json").read_text())
    changed_card(path, settings=told["settings"] | {"hidden": 16})
    with pytest.raises(
        InputError, match=r"theta has \d+ numbers, but a network of \d+ inputs, 16 hidden units"
    ):
        _ = Learned(weights=str(path)).parameters
    changed_card(path, settings=told["settings"] | {"strange": 1})
    with pytest.raises(InputError, match=r"unknown key 'strange'"):
        build(Learned, {"weights": str(path)})


def test_foreign_files(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.safetensors"
    save_file({"layer.weight": torch.zeros(3)}, foreign)
    with pytest.raises(InputError, match=r"no card foreign.json beside it"):
        build(Learned, {"weights": str(foreign)})
    pickled = tmp_path / "pickled.pt"
    torch.save({"theta": torch.zeros(3)}, pickled)
    with pytest.raises(InputError, match=r"a file of weights ends in .safetensors"):
        build(Learned, {"weights": str(pickled)})
    with pytest.raises(InputError, match=r"there is no file .*nowhere.safetensors"):
        build(Learned, {"weights": str(tmp_path / "nowhere.safetensors")})
    foreign.with_suffix(".json").write_text("{broken")
    with pytest.raises(InputError, match=r"its card foreign.json cannot be read"):
        build(Learned, {"weights": str(foreign)})


def test_what_is_not_saved(family: LearnedFamily, tmp_path: Path) -> None:
    theta, settings = family.start(0), family.settings()
    with pytest.raises(InputError, match=r"ends in .safetensors"):
        save_weights(tmp_path / "w.pt", theta, "learned", settings, SAID)
    with pytest.raises(InputError, match=r"the card must say of the training: command"):
        save_weights(
            tmp_path / "w.safetensors",
            theta,
            "learned",
            settings,
            {n: SAID[n] for n in SAID if n != "command"},
        )
    with pytest.raises(InputError, match=r"plain data of finite numbers"):
        save_weights(
            tmp_path / "w.safetensors", theta, "learned", settings, SAID | {"results": {"mean": float("nan")}}
        )
    theta[3] = torch.inf
    with pytest.raises(InputError, match=r"a vector of finite numbers"):
        save_weights(tmp_path / "w.safetensors", theta, "learned", settings, SAID)
    assert not list(tmp_path.iterdir())

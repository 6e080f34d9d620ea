"""Which atoms a run is about: what is read, and what is said when it cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ase import Atoms
from ase.constraints import FixAtoms
from ase.io import write

from mlopt.core.errors import ConfigError, InputError
from mlopt.core.plugins.plugin import build
from mlopt.core.structures.spec import SystemSpec


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    path = tmp_path / "frames.extxyz"
    images = [Atoms("CuAr", [[0, 0, 0], [0, 0, 2.0 + i]]) for i in range(3)]
    images[1].set_constraint(FixAtoms([0]))
    write(path, images)
    return path


def test_cluster() -> None:
    system = SystemSpec(cluster="Ag2Au").load()
    assert system.z.tolist() == [47, 47, 79] and len(system) == 1
    assert system.pos.dtype == torch.float64 and not system.periodic and not bool(system.fixed.any())


def test_file(frames: Path) -> None:
    assert float(SystemSpec(file=str(frames)).load().pos[1, 2]) == 4.0  # the last
    for index in (0, 1, 2, -3, -1):
        assert float(SystemSpec(file=str(frames), index=index).load().pos[1, 2]) == 2.0 + index % 3
    assert SystemSpec(file=str(frames), index=1).load().fixed.tolist() == [True, False]
    assert SystemSpec(file=str(frames)).load().fixed.tolist() == [False, False]


def test_a_file_is_remembered_wherever_the_run_is_resumed(
    frames: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(frames.parent)
    spec = SystemSpec(file="frames.extxyz")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert spec.file == str(frames) and len(spec.load().z) == 2
    monkeypatch.setenv("HOME", str(frames.parent))
    assert SystemSpec(file="~/frames.extxyz").file == str(frames)


def test_coincident_atoms_are_refused_or_separated(tmp_path: Path) -> None:
    path = tmp_path / "heap.xyz"
    path.write_text("3\n\nAr 0 0 0\nAr 0 0 0\nAr 5 0 0\n")
    with pytest.raises(
        InputError, match=r"heap\.xyz: the structure: atoms 0 and 1 \(Ar and Ar\) are 0 apart"
    ):
        SystemSpec(file=str(path)).load()
    system = SystemSpec(file=str(path), separate=True).load()
    assert float(torch.pdist(system.pos).min()) > 1e-3
    assert float(system.pos[2, 0]) == 5.0


@pytest.mark.parametrize(
    "settings,message",
    [
        (
            {},
            "give one of `cluster` (a formula, like Ar38), `file` (a structure file) and `crystal` (such as Cu)",
        ),
        ({"cluster": "Ar3", "file": "a.xyz"}, "give one of `cluster`"),
        (
            {"cluster": "38"},
            "cluster: '38' is not a formula; write elements and counts, like Ar38 or Ag32Au6",
        ),
        ({"cluster": "Arr3"}, "cluster: 'Arr3'"),
        ({"cluster": "Xx3"}, "cluster: 'Xx3': no element has the symbol 'Xx'."),
        ({"cluster": "Ar0"}, "cluster: 'Ar0' has no atoms"),
        ({"cluster": "Ar9999999"}, "cluster: 'Ar9999999' asks for more than 1,000,000 atoms"),
        ({"cluster": 38}, "cluster: input should be a valid string (got 38)"),
        ({"clusters": "Ar3"}, "unknown key 'clusters' in the top level. Did you mean 'cluster'?"),
        ({"file": "a.xyz", "index": "first"}, "index: input should be a valid integer (got 'first')"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(SystemSpec, settings, "run.yaml")
    assert str(caught.value).startswith("run.yaml: ") and message in str(caught.value)


def test_bad_files(frames: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.xyz: there is no such file"):
        SystemSpec(file=str(tmp_path / "nothing.xyz")).load()
    for index in (3, -4):
        with pytest.raises(InputError, match=f"has 3 structures, so there is no number {index}"):
            SystemSpec(file=str(frames), index=index).load()


def test_a_bare_word_is_a_formula_or_a_file(frames: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(frames.parent)
    taken = SystemSpec.model_validate
    assert taken("Cu13").cluster == "Cu13" and taken("Cu13").file is None
    assert taken("frames.extxyz").file == str(frames)
    assert taken("absent/start").file == str(frames.parent / "absent" / "start")
    assert taken("absent.cif").file == str(frames.parent / "absent.cif")
    (frames.parent / "POSCAR").write_text("anything")
    assert taken("POSCAR").file == str(frames.parent / "POSCAR")
    (frames.parent / "Cu13").write_text("a file of that name changes nothing")
    assert taken("Cu13").cluster == "Cu13"


@pytest.mark.parametrize("word", ["", "cu13", "Cx13", "\0", "a" * 5000])
def test_other_words_are_no_system(word: str) -> None:
    with pytest.raises(ValueError, match="cluster"):
        SystemSpec.model_validate(word)


def test_a_word_takes_settings_beside_it(frames: Path) -> None:
    """As ``-s system.index=0`` adds one to a configuration with a word."""
    taken = SystemSpec.model_validate({"name": str(frames), "index": 0})
    assert taken.file == str(frames) and taken.index == 0
    assert SystemSpec.model_validate({"name": "Cu13"}).cluster == "Cu13"


def test_lennard_jones_atoms_are_no_element() -> None:
    with pytest.raises(ValueError, match="write Ar38"):
        SystemSpec(cluster="LJ38")

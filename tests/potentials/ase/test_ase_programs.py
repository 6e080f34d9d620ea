"""Programs that calculators of ASE start: whether they are there."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
from ase.calculators.emt import EMT

from mlopt.core.errors import InputError
from mlopt.potentials import AsePotential, SumPotential
from mlopt.potentials.ase.programs import find_program


def with_profile(command: str) -> Any:
    return SimpleNamespace(profile=SimpleNamespace(command=command))


def without_profile(command: str | None) -> Any:
    """As Vasp, whose command is asked for."""

    def make_command(given: str | None) -> str:
        if given is None:
            raise RuntimeError("Please set VASP_COMMAND")
        return given

    return SimpleNamespace(command=command, make_command=make_command)


def test_a_program_that_is_there() -> None:
    find_program("espresso", with_profile(f"'{sys.executable}' -m this"))
    find_program("vasp", without_profile(sys.executable))


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(
        InputError, match=r"the program 'no-such-pw\.x' of the calculator 'espresso' is not on this"
    ):
        find_program("espresso", with_profile("no-such-pw.x -npool 2"))
    with pytest.raises(InputError, match=r"'vasp': .*set VASP_COMMAND.*config\.ini`, section \[vasp\]"):
        find_program("vasp", without_profile(None))
    with pytest.raises(InputError, match="no program is known for the calculator 'aims'"):
        find_program("aims", with_profile(""))


def test_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tblite.ase", None)
    missing = AsePotential(calculator="tblite")
    for potential in (missing, SumPotential(terms=[AsePotential(calculator="emt"), missing])):
        with pytest.raises(InputError, match="pip install tblite"):
            potential.present()


def test_calculators_without_a_program_are_there() -> None:
    AsePotential(calculator="emt").present()
    AsePotential.wrap(EMT()).present()  # type: ignore[no-untyped-call]

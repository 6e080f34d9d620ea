"""What is suggested for a name that nobody knows."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mlopt.core import suggestions
from mlopt.core.errors import PluginError
from mlopt.core.plugins.registry import GROUPS, entries, find
from mlopt.core.suggestions import hint, nearest


@pytest.mark.parametrize("word", ["L-BFGS", "l_bfgs", "lbfgs", "LBFGS ", "L bfgs"])
def test_case_and_hyphens_do_not_count(word: str) -> None:
    assert nearest(word, ["fire", "lbfgs"]) == "lbfgs"


def test_what_is_far_from_everything_suggests_nothing() -> None:
    assert nearest("zzzz", ["fire", "lbfgs"]) is None and hint("zzzz", ["fire"]) == ""
    assert nearest("fire" * 10_000, ["fire"]) is None


@pytest.mark.parametrize(
    ("kind", "word", "meant"),
    [
        ("experiment", "neb", "Did you mean 'path'?"),
        ("experiment", "CI-NEB", "Did you mean 'path'?"),
        ("experiment", "dimer", "Did you mean 'network'?"),
        ("experiment", "global", "Did you mean 'search'?"),
        ("experiment", "bh", "write `experiment: search` with `optimizer: {name: basin-hopping}`"),
        ("experiment", "basinhopping", "write `experiment: search` with `optimizer: {name: basin-hopping}`"),
        ("experiment", "relax", "`experiment: search` with `optimizer: {name: lbfgs}`"),
        ("experiment", "optimize", "`experiment: search` with `optimizer: {name: lbfgs}`"),
        ("experiment", "dynamics", "Did you mean 'md'?"),
        ("experiment", "gupta", "'gupta' is a potential, see `mlopt info potential:gupta`"),
        ("potential", "LJ", "Did you mean 'lennard-jones'?"),
        ("potential", "lj", "Did you mean 'lennard-jones'?"),
        ("potential", "Lennard_Jones", "Did you mean 'lennard-jones'?"),
        ("potential", "emt", "write `potential: {name: ase, calculator: emt}`"),
        ("potential", "EMT", "write `potential: {name: ase, calculator: emt}`"),
        ("potential", "MACE", "AsePotential.wrap(calculator)"),
        ("optimizer", "bh", "Did you mean 'basin-hopping'?"),
        ("optimizer", "BFGS", "Did you mean 'bfgs'?"),
        ("optimizer", "neb", "`experiment: path`"),
    ],
)
def test_words_of_the_field(kind: str, word: str, meant: str) -> None:
    with pytest.raises(PluginError) as caught:
        find(kind, word)
    assert meant in str(caught.value) and "editable" not in str(caught.value)


def test_words_name_what_there_is() -> None:
    """Each is folded, is no name itself, and stands for one that is installed."""
    names = {kind: {entry.name for entry in entries(kind)} for kind in GROUPS}
    for table in (suggestions._NAMES, suggestions._ADVICE):
        for kind, words in table.items():
            assert all(suggestions.fold(word) == word for word in words)
            if table is suggestions._NAMES:
                assert set(words.values()) <= names[kind]
            assert not set(words) & names[kind]


def test_names_need_no_torch() -> None:
    program = "import sys, mlopt.core.suggestions; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0

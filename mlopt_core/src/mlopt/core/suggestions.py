"""Suggestions for an unknown name: another spelling, the nearest known name, or the name of a known synonym."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable

from mlopt.core.quoting import quoted

#: kind of plugin -> common word -> name in mlopt. Words are folded, see `fold`.
_NAMES = {
    "potential": {
        "lj": "lennard-jones",
        "sw": "stillinger-weber",
        "bp": "behler-parrinello",
        "bpnn": "behler-parrinello",
        "nnp": "behler-parrinello",
        "amp": "behler-parrinello",
        "momenttensorpotential": "mtp",
        "tbsma": "gupta",
        "rgl": "gupta",
        "hertzian": "soft-sphere",
    },
    "optimizer": {
        "bh": "basin-hopping",
        "gmin": "basin-hopping",
        "montecarlo": "basin-hopping",
        "mc": "basin-hopping",
        "lbfgsb": "lbfgs",
        "cg": "conjugate-gradients",
        "conjugategradient": "conjugate-gradients",
        "lm": "levenberg-marquardt",
        "gd": "gradient-descent",
        "sgd": "gradient-descent",
        "steepestdescent": "gradient-descent",
        "sa": "annealing",
        "mh": "minima-hopping",
        "verlet": "velocity-verlet",
        "nve": "velocity-verlet",
        "baoab": "langevin",
        "csvr": "bussi",
        "nvt": "langevin",
        "nosehooverchain": "nose-hoover",
        "vpo": "velocity-projection",
        "quickmin": "velocity-projection",
    },
    "experiment": {
        "neb": "path",
        "cineb": "path",
        "gneb": "path",
        "band": "path",
        "string": "path",
        "barrier": "path",
        "transition": "path",
        "ts": "network",
        "saddle": "network",
        "dimer": "network",
        "landscape": "network",
        "global": "search",
        "globaloptimization": "search",
        "globalminimum": "search",
        "minimahopping": "search",
        "train": "meta-train",
        "training": "meta-train",
        "learn": "meta-train",
        "dynamics": "md",
        "moleculardynamics": "md",
        "benchmark": "contest",
        "compare": "contest",
    },
    "start": {"random": "sphere", "ball": "sphere", "file": "given"},
    "move": {"swap": "exchange", "rotation": "twist", "random": "displacement"},
    "model": {"spins": "heisenberg", "system": "atoms", "mullerbrown": "muller-brown"},
}
_HOPPING = "It is an optimizer: write `experiment: search` with `optimizer: {name: basin-hopping}`."
_RELAXATION = (
    "A relaxation is `experiment: search` with `optimizer: {name: lbfgs}`, `fmax: 0.01` and `starts: 1`."
)
_IN_PYTHON = (
    "A calculator of ASE that is none of those for configurations is given in Python: "
    "`AsePotential.wrap(calculator)`."
)
#: kind -> word -> what to do, where that is more than another name
_ADVICE = {
    "potential": {
        **{
            name: f"It is a calculator of ASE: write `potential: {{name: ase, calculator: {name}}}`."
            for name in ("abinit", "aims", "emt", "espresso", "tblite", "tip3p", "tip4p", "vasp")
        },
        "eam": "It is a calculator of ASE: write "
        "`potential: {name: ase, calculator: eam, parameters: {potential: FILE}}`.",
        **dict.fromkeys(
            ("mace", "chgnet", "m3gnet", "nequip", "sevennet", "gpaw", "lammps", "orca", "cp2k", "dftb"),
            _IN_PYTHON,
        ),
        "xtb": "GFN2-xTB is a calculator: write "
        "`potential: {name: ase, calculator: tblite, parameters: {method: GFN2-xTB}}`.",
        "heisenberg": "Spins are a model of paths: `mlopt info model:heisenberg`.",
    },
    "optimizer": {
        "neb": "A band is an experiment: `experiment: path`, see `mlopt info path`.",
        "md": "Molecular dynamics is an experiment: `experiment: md` with `optimizer: {name: langevin}`, see "
        "`mlopt info md`.",
    },
    "experiment": {
        **dict.fromkeys(("bh", "basinhopping", "gmin"), _HOPPING),
        **dict.fromkeys(
            ("relax", "relaxation", "optimize", "optimise", "opt", "optimization", "geometry"), _RELAXATION
        ),
        **dict.fromkeys(("minimize", "minimise", "minimization", "lbfgs", "bfgs", "fire"), _RELAXATION),
    },
}


def fold(word: str) -> str:
    """Return the letters and digits of a word in lower case, so that ``L-BFGS``, ``l_bfgs`` and ``lbfgs`` are equal."""
    return "".join(character for character in word.casefold() if character.isalnum())


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known name with the most similar spelling, ignoring case and hyphens; None if none is near."""
    folded: dict[str, str] = {}
    for name in known:
        folded.setdefault(fold(name), name)
    given = fold(word[:100])
    if given in folded:
        return folded[given]
    close = difflib.get_close_matches(given, folded, n=1, cutoff=0.5)
    return folded[close[0]] if close else None


def hint(word: str, known: Iterable[str]) -> str:
    """Return ``Did you mean 'NAME'?`` with a leading blank, or an empty string.

    >>> hint("EMT", ["eam", "emt"])
    " Did you mean 'emt'?"
    """
    close = nearest(word, known)
    return f" Did you mean {quoted(close)}?" if close else ""


def synonym(kind: str, word: str, known: Collection[str]) -> str:
    """Return a suggestion for a common term that is not the name of a plugin of that kind, or an empty string.

    >>> synonym("experiment", "NEB", ["path", "search"])
    " Did you mean 'path'?"
    """
    given = fold(word[:100])
    if given in _ADVICE.get(kind, {}):
        return f" {_ADVICE[kind][given]}"
    meant = _NAMES.get(kind, {}).get(given)
    return f" Did you mean {quoted(meant)}?" if meant is not None and meant in known else ""


def synonym_of_any(word: str, known: Collection[str]) -> str:
    """Return the suggestion of `synonym` for plugins of any kind."""
    return next((found for kind in _NAMES if (found := synonym(kind, word, known))), "")

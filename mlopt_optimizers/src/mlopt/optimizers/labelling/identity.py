"""The identity of a label: a digest of the structure and of the labeller's settings.

Two structures are the same if their positions, cells, species and periodic directions agree in all bits. The columns on
which a calculator depends (`Labeller.reads`) must agree as well. Tags, masses, fixed atoms and other info do not matter
to a label.
"""

from __future__ import annotations

import hashlib
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

from mlopt.core.atoms.systems import Systems
from mlopt.core.atoms.template import Template
from mlopt.core.plugins import registry
from mlopt.core.plugins.input_file import Reads
from mlopt.core.protocols.labeller import Labeller
from mlopt.core.quoting import one_line
from mlopt.core.runs.kept_files import KeptFiles, over_files

#: columns and info for which nothing and zero are the same
_ZERO = ("initial_charges", "initial_magmoms", "charge")


def settings_of(labeller: Labeller) -> dict[str, Any]:
    """Return the name of a labeller and the settings that its labels depend on, as plain data.

    A file is described by its name and content, so that it may be moved. Arrays are described by their digest.
    """
    digests = KeptFiles.of(labeller).digests

    def describe(place: str, value: str, reads: Reads) -> str:
        found = digests.get(place)
        return value if found is None else f"{Path(value).name}, SHA-256 {found}"

    told = over_files(labeller, describe).config()
    running = {*type(labeller).running, *(("edition",) if not labeller.edition else ())}
    name = registry.name_of("labeller", type(labeller)) or type(labeller).__name__
    settings = {key: value for key, value in told.items() if key not in running}
    described: dict[str, Any] = json.loads(_json({"name": name} | settings))
    return described


def labeller_key(settings: dict[str, Any]) -> str:
    """Return the SHA-256 of a labeller's settings."""
    return hashlib.sha256(_json(settings).encode()).hexdigest()


def structure_keys(systems: Systems, reads: tuple[str, ...] = Labeller.reads) -> list[str]:
    """Return the SHA-256 of each structure; ``reads`` are the columns and info that count."""
    # adding zero turns -0.0 into 0.0
    pos, cell = ((one.detach().double().cpu() + 0.0).numpy() for one in (systems.pos, systems.cell))
    z, pbc = systems.z.cpu().numpy(), systems.pbc.cpu().numpy()
    keys = []
    for index, (start, stop) in enumerate(pairwise(systems.ptr.tolist())):
        told = hashlib.sha256()
        for part in (z[start:stop], pos[start:stop], cell[index], pbc[index]):
            told.update(part.tobytes())
        template = systems.template_of(index)
        if template is not None and (read := _read(template, reads)):
            told.update(_json(read).encode())
        keys.append(told.hexdigest())
    return keys


def label_key(structure: str, labeller: str) -> str:
    """Return the key of a label: the SHA-256 of the digests of its structure and of its labeller."""
    return hashlib.sha256(f"{structure} {labeller}".encode()).hexdigest()


def differences(here: dict[str, Any], there: dict[str, Any]) -> list[str]:
    """Return the settings that differ, one text each, such as ``potential.cutoff: 5.0 here, 4.0 there``."""
    one, other = _flat(here), _flat(there)
    missing = object()
    found = []
    for name in {**one, **other}:
        a, b = one.get(name, missing), other.get(name, missing)
        if a != b:
            texts = ["none" if value is missing else one_line(json.dumps(value), 80) for value in (a, b)]
            found.append(f"{name}: {texts[0]} here, {texts[1]} there")
    return found


def _read(template: Template, reads: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in reads:
        for place in (template.arrays, template.info):
            if name not in place:
                continue
            value = place[name]
            nothing = not value.any() if hasattr(value, "any") else not value
            if not (name in _ZERO and nothing):
                found[name] = value.tolist() if hasattr(value, "tolist") else value
    return found


def _flat(tree: Any, place: str = "") -> dict[str, Any]:
    if isinstance(tree, dict) and tree:
        return {
            key: one
            for name, branch in tree.items()
            for key, one in _flat(branch, f"{place}.{name}" if place else str(name)).items()
        }
    return {place: tree}


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=_described)


def _described(value: Any) -> Any:
    """Return a tensor or an array as a text with its digest, and any other object by its class."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().contiguous().numpy()
    if hasattr(value, "tobytes") and hasattr(value, "dtype"):
        if not value.shape:
            return value.item()
        return f"{value.dtype} {value.shape}, SHA-256 {hashlib.sha256(value.tobytes()).hexdigest()}"
    return f"{type(value).__module__}.{type(value).__qualname__}"

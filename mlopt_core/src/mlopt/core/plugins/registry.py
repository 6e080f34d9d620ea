"""The registry: plugins found by name through entry points, and imported only on request.

Built-ins use the same groups as everyone else. Invariants: listing imports nothing, and loading imports exactly one
plugin. A broken plugin is one line in a list, and an error message when it is requested; it never stops a program.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import sys
from dataclasses import dataclass
from functools import lru_cache

from mlopt.core.errors import PluginError
from mlopt.core.quoting import one_line, quoted
from mlopt.core.suggestions import fold, hint, synonym

#: kind of plugin -> entry-point group
GROUPS = {
    "potential": "mlopt.potentials",
    "optimizer": "mlopt.optimizers",
    "start": "mlopt.starts",
    "move": "mlopt.moves",
    "model": "mlopt.models",
    "task": "mlopt.tasks",
    "learnable": "mlopt.learnables",
    "meta-trainer": "mlopt.meta_trainers",
    "query-strategy": "mlopt.query_strategies",
    "labeller": "mlopt.labellers",
    "experiment": "mlopt.experiments",
    "engine": "mlopt.engines",
}


@dataclass(frozen=True)
class Entry:
    """One registered plugin. ``target`` is ``module:attribute``; listing does not import it."""

    kind: str
    name: str
    target: str
    distribution: str
    version: str

    def load(self) -> type:
        """Import the plugin and return its class.

        Raises:
            PluginError: the import failed, or what it found is not a class.
        """
        module_name, _, attribute = self.target.partition(":")
        origin = f"({self.target}, from {self.distribution} {self.version})"
        where = f"{GROUPS[self.kind]} plugin {quoted(self.name)} {origin}"
        try:
            with contextlib.redirect_stdout(sys.stderr):  # standard output is for results
                found: object = importlib.import_module(module_name)
            for part in attribute.split("."):
                found = getattr(found, part)
        except (Exception, SystemExit) as error:  # a third-party module may do anything when imported
            cause = f"{type(error).__name__}: {one_line(error, 200)}"
            raise PluginError(
                f"{where} failed to import: {cause}. Reinstall, update or uninstall {self.distribution}."
            ) from error
        if not isinstance(found, type):
            raise PluginError(
                f"{where} is {quoted(type(found).__name__)}, not a class. Tell the authors of {self.distribution}."
            )
        return found


def _group(kind: str) -> str:
    try:
        return GROUPS[kind]
    except KeyError:
        raise PluginError(
            f"No kind of plugin is called {quoted(kind)}. Kinds: {', '.join(GROUPS)}."
        ) from None


def entries(kind: str | None = None) -> list[Entry]:
    """Return every registered plugin of a kind, or of all kinds, sorted by name, without importing any.

    An editable and a normal install of one distribution may both be visible; their identical entries count once.
    """
    if kind is not None:
        _group(kind)
    return [entry for entry in _installed(_folders()) if kind in (None, entry.kind)]


def _folders() -> tuple[tuple[str, int | None], ...]:
    """Return the folders that Python searches, each with the time at which something was last installed there."""
    folders = []
    for name in sys.path:
        try:
            changed = os.stat(name or ".").st_mtime_ns
        except (OSError, ValueError):
            changed = None
        folders.append((name, changed))
    return tuple(folders)


@lru_cache(maxsize=4)
def _installed(folders: tuple[tuple[str, int | None], ...]) -> tuple[Entry, ...]:
    """Return `entries` of all kinds. Reading them takes 15 ms, and a run asks for them some forty times."""
    points = importlib.metadata.entry_points()
    found: dict[Entry, None] = {}
    for kind, group in GROUPS.items():
        for point in points.select(group=group):
            distribution = point.dist.metadata["Name"] if point.dist else "unknown"
            version = point.dist.version if point.dist else "?"
            found[Entry(kind, point.name, point.value, distribution, version)] = None
    order = list(GROUPS)
    return tuple(sorted(found, key=lambda entry: (order.index(entry.kind), entry.name, entry.distribution)))


def find(kind: str, name: str) -> Entry:
    """Return the one plugin of that kind and name.

    Raises:
        PluginError: none has that name (with a suggestion), or more than one distribution registers it.
    """
    known = entries(kind)
    matches = [entry for entry in known if entry.name == name]
    if len(matches) == 1:
        return matches[0]
    if matches:
        owners = " and ".join(f"{entry.distribution} ({entry.target})" for entry in matches)
        raise PluginError(
            f"Two distributions register the {kind} {quoted(name)}: {owners}. Uninstall one of them; mlopt does not "
            f"choose."
        )
    names = sorted({entry.name for entry in known})
    listed = ", ".join(names) if names else "none"
    meant = _hint(kind, name, names)
    again = " If you have just installed it in editable mode, install it again: entry points are read at installation."
    raise PluginError(
        f"No {kind} is called {quoted(name)}.{meant} Installed: {listed}.{again if not meant else ''}"
    )


def _hint(kind: str, name: str, names: list[str]) -> str:
    """Return a suggestion with a leading blank: another name, a synonym, or another kind."""
    given = fold(name[:100])
    if given in {fold(one) for one in names}:
        return hint(name, names)
    advice = synonym(kind, name, names)
    if advice:
        return advice
    for other in entries():
        if fold(other.name) == given:
            article = "an" if other.kind[0] in "aeiou" else "a"
            about = f"`mlopt info {other.kind}:{other.name}`"
            return f" {quoted(other.name)} is {article} {other.kind}, see {about}."
    return hint(name, names)


def load(kind: str, name: str) -> type:
    """Import the one plugin of that kind and name and return its class; errors as in `find` and `Entry.load`."""
    return find(kind, name).load()


def name_of(kind: str, cls: type) -> str | None:
    """Return the name under which a class is registered, or None. Imports nothing."""
    target = f"{cls.__module__}:{cls.__qualname__}"
    for entry in entries(kind):
        if entry.target == target:
            return entry.name
    return None

"""The identity of a run: its configuration and input files, written into each checkpoint and compared on a resume."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mlopt.core.errors import MloptError, RunDirectoryError
from mlopt.core.quoting import one_line
from mlopt.core.runs import config
from mlopt.core.runs.checkpoint import Checkpoint

#: the entry of a checkpoint's ``meta`` that is not the experiment's
KEY = "mlopt run"
#: characters of a configuration beyond which a checkpoint keeps its digest alone
_LONGEST = 65_536
#: differences that a message lists
_LISTED = 6


@dataclass(frozen=True)
class Identity:
    """A resolved configuration (YAML), and the digest of each input file by its setting."""

    config: str
    files: Mapping[str, str] = field(default_factory=dict)

    def seal(self, checkpoint: Checkpoint) -> Checkpoint:
        """Return the checkpoint with this identity in it."""
        told: dict[str, Any] = {"config_sha256": _digest(self.config), "files": dict(self.files)}
        if len(self.config) <= _LONGEST:
            told["config"] = self.config
        return Checkpoint(checkpoint.tensors, checkpoint.meta | {KEY: told})

    def unseal(self, checkpoint: Checkpoint, source: str, *, required: bool = True) -> Checkpoint:
        """Return the checkpoint as the experiment saved it.

        required: False for a run begun by a version of mlopt whose checkpoints had no identity.

        Raises:
            RunDirectoryError: the checkpoint belongs to another configuration or to other files; ``source`` names it.
        """
        remedy = (
            f"Only a checkpoint of this run can carry it on: put its own back, or delete {source}; `mlopt resume` then "
            f"takes the one before it, or begins anew."
        )
        told = checkpoint.meta.get(KEY)
        if told is None:
            if not required:
                return checkpoint
            raise RunDirectoryError(
                f"{source}: does not say which run it belongs to, so not to this one. {remedy}"
            )
        if told["config_sha256"] != _digest(self.config):
            differences = self._differences(told.get("config"))
            raise RunDirectoryError(
                f"{source}: written by a run with another configuration{differences}. {remedy}"
            )
        others = sorted(
            name for name in {*told["files"], *self.files} if told["files"].get(name) != self.files.get(name)
        )
        if others:
            raise RunDirectoryError(
                f"{source}: written by a run whose file for `{'`, `'.join(others)}` was another one. {remedy}"
            )
        return Checkpoint(
            checkpoint.tensors, {key: one for key, one in checkpoint.meta.items() if key != KEY}
        )

    def _differences(self, other: str | None) -> str:
        """Return the settings that differ, as `` (seed: 1 there, 0 here)``; an empty string if that is unknown."""
        if other is None:
            return ""
        try:
            there, here = (_flat(config.read_yaml(text)) for text in (other, self.config))
        except MloptError:
            return ""
        missing = object()
        lines = [
            f"{name}: {_shown(there, name)} there, {_shown(here, name)} here"
            for name in dict.fromkeys([*here, *there])
            if there.get(name, missing) != here.get(name, missing)
        ]
        more = [f"and {len(lines) - _LISTED} more"] if len(lines) > _LISTED else []
        return f" ({'; '.join([*lines[:_LISTED], *more])})" if lines else ""


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """Return nested mappings and lists as one mapping, with dotted names."""
    pairs = (
        value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else None
    )
    if pairs is None or not value:
        return {name: value}
    found: dict[str, Any] = {}
    for key, item in pairs:
        found |= _flat(item, f"{name}.{key}" if name else str(key))
    return found


def _shown(values: Mapping[str, Any], name: str) -> str:
    return one_line(values[name], 60) if name in values else "not set"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()

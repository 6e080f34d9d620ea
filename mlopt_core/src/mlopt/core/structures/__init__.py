"""Structure files: reading with checks, one line of explanation for each fault, and writing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlopt.core.lazy import names_of

if TYPE_CHECKING:
    from mlopt.core.structures.checks import check_same_atoms
    from mlopt.core.structures.labels import LabelledFile, labelled, read_dataset
    from mlopt.core.structures.read import read_structures
    from mlopt.core.structures.spec import SystemSpec
    from mlopt.core.structures.write import write_extxyz

__all__ = [
    "LabelledFile",
    "SystemSpec",
    "check_same_atoms",
    "labelled",
    "read_dataset",
    "read_structures",
    "write_extxyz",
]

__getattr__ = names_of(
    __name__,
    {
        "checks": ("check_same_atoms",),
        "labels": ("LabelledFile", "labelled", "read_dataset"),
        "read": ("read_structures",),
        "spec": ("SystemSpec",),
        "write": ("write_extxyz",),
    },
)

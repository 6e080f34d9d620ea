"""Spins from a user, scaled to unit length or refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlopt.core.errors import InputError


def unit_spins(
    values: ArrayLike, n_spins: int, *, where: str = "spins", label: Callable[[int], str] = "spin {}".format
) -> NDArray[np.float64]:
    """Return vectors of any length as unit vectors (n_spins, 3) in float64.

    label: names a spin in messages.

    Raises:
        InputError: not (n_spins, 3) numbers, or a vector that is not finite or has no length.
    """
    try:
        found = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: not an array of numbers: {error}") from error
    if found.shape != (n_spins, 3):
        raise InputError(
            f"{where}: {n_spins} vectors of 3 components are needed, one for each spin; got shape {found.shape}"
        )
    wrong = ~np.isfinite(found).all(-1)
    if wrong.any():
        spin = int(np.argmax(wrong))
        raise InputError(f"{where}: {label(spin)} is {found[spin].tolist()}, which is not finite; correct it")
    found /= np.maximum(np.abs(found).max(-1, keepdims=True), np.finfo(np.float64).tiny)  # squares of 1e200
    length = np.linalg.norm(found, axis=-1, keepdims=True)
    if not length.all():
        spin = int(np.argmin(length))
        raise InputError(
            f"{where}: {label(spin)} has the length zero, so it has no direction. Give it one, or declare the site "
            f"vacant"
        )
    unit: NDArray[np.float64] = found / length
    return unit

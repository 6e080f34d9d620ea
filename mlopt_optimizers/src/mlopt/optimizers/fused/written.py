"""Texts of kernels. Each is written once in a process, because writing takes as long as thousands of steps."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from mlopt.core.kernels.kernel import Kernel
from mlopt.optimizers.fused.writer import Writer

#: by form: the text, the name of the function that is called, and places of kernels among `_all`
_TEXTS: dict[Hashable, tuple[str, str, tuple[int, ...]]] = {}


@dataclass(frozen=True)
class Written:
    """A kernel with all that it calls, as text.

    text: the functions.
    name: the name of the function that is called.
    settings, theta: those of every kernel, in the order in which the text reads them. A theta is (p,) or
    (n_problems, p).
    """

    text: str
    name: str
    settings: list[Any]
    theta: list[Any]


def written(kernel: Kernel) -> Written:
    """Write ``kernel``, or take the text of one that differs in the values of settings and theta alone.

    Raises:
        InputError: it contains something that no kernel can, or its source cannot be read.
    """
    form, kernels = _form(kernel), _all(kernel)
    if form not in _TEXTS:
        writer = Writer()
        name = writer.kernel(kernel)
        places = {id(one): place for place, one in enumerate(kernels)}
        _TEXTS[form] = writer.text, name, tuple(places[id(one)] for one in writer.kernels)
    text, name, order = _TEXTS[form]
    ordered = [kernels[place] for place in order]
    settings = [number for one in ordered for number in one.settings]
    return Written(text, name, settings, [one.theta for one in ordered if one.theta is not None])


def _form(part: Any) -> Hashable:
    """Return everything in a kernel, or in one of its parts, that determines its text."""
    if isinstance(part, Kernel):
        parts = tuple((name, _form(one)) for name, one in part.parts.items())
        size = None if part.theta is None else part.theta.shape[-1]
        return part.function, len(part.settings), tuple(part.constants.items()), parts, size
    if isinstance(part, Sequence):
        return tuple(_form(one) for one in part)
    return part if isinstance(part, Hashable) else id(part)


def _all(part: Any) -> list[Kernel]:
    """Return a kernel, the kernels among its parts, and theirs."""
    if isinstance(part, Kernel):
        return [part, *(found for one in part.parts.values() for found in _all(one))]
    return [found for one in part for found in _all(one)] if isinstance(part, Sequence) else []

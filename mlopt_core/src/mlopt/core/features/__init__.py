"""Features of neighbourhoods: graphs of neighbours, radial symmetry functions and layers of messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlopt.core.lazy import names_of

if TYPE_CHECKING:
    from mlopt.core.features.base import CutoffLayer
    from mlopt.core.features.graph import Graph
    from mlopt.core.features.messages import MessageFeatures
    from mlopt.core.features.neighbourhood import Neighbourhood
    from mlopt.core.features.radial import RadialFeatures

__all__ = [
    "CutoffLayer",
    "Graph",
    "MessageFeatures",
    "Neighbourhood",
    "RadialFeatures",
]

__getattr__ = names_of(
    __name__,
    {
        "base": ("CutoffLayer",),
        "graph": ("Graph",),
        "messages": ("MessageFeatures",),
        "neighbourhood": ("Neighbourhood",),
        "radial": ("RadialFeatures",),
    },
)

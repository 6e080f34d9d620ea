"""Settings and input that layers of features refuse, and in which words."""

from __future__ import annotations

import subprocess
import sys

import pytest
from feature_systems import LAYERS, clusters, crystals, widths

from mlopt.core.errors import InputError
from mlopt.core.features.graph import Graph
from mlopt.core.features.messages import MessageFeatures
from mlopt.core.features.neighbourhood import Neighbourhood
from mlopt.core.features.radial import RadialFeatures


def raises(*parts: str):
    return pytest.raises(InputError, match=".*".join(parts))


def test_messages_for_bad_settings():
    for make in (RadialFeatures, MessageFeatures, Neighbourhood):
        for cutoff in (0.0, -1.0, float("nan")):
            with raises(make.__name__, "`cutoff` must be positive", "2.5"):
                make(cutoff=cutoff)
    with raises("`skin` must not be negative", "-1"):
        Neighbourhood(skin=-1)
    for etas in ((), (-0.1,), (float("inf"),)):
        with raises("`etas` must be one or more numbers >= 0"):
            RadialFeatures(etas)
    for species in ((), (29, 29), (0,), (500,), ("Cu",)):
        with raises("`species` must be different atomic numbers", "None"):
            RadialFeatures(species=species)
    for name in ("width", "hidden", "rounds", "gaussians"):
        with raises(f"`{name}` must be a whole number of at least 1, got 0"):
            MessageFeatures(**{name: 0})


@LAYERS
def test_messages_for_bad_input(make):
    systems, layer = clusters(5), make()
    name, graph, z, d = type(layer).__name__, Graph.complete_of(systems.segments), systems.z, widths(systems)
    strange = z.clone()
    strange[2], strange[3] = 47, 0
    with raises(f"{name}: tells Cu, Au apart and got 0, Ag", "Name every species"):
        layer(systems.pos, graph, strange, d)
    with raises(f"{name}: tells Cu, Au apart, but the rows have no species"):
        layer(systems.pos, graph)
    with raises(r"`species` must have shape \(5,\), got \(4,\)"):
        layer(systems.pos, graph, z[:4], d)
    with raises(r"`x` must have shape \(5, d\) to fit the graph, got \(4, 3\)", "made again"):
        layer(systems.pos[:4], graph, z, d)
    with raises(r"`diameter` must have shape \(5,\), got \(1,\)"):
        layer(systems.pos, graph, z, d[:1])
    with raises(r"`diameter` must have one positive length for each of the 5 atoms"):
        Neighbourhood().graph(systems, 0.0 * d)
    with raises(
        f"{name}: its cutoff is 2.5, but the graph has pairs up to 2.0 only", r"Neighbourhood\(cutoff=2.5\)"
    ):
        crystal = crystals(1)
        layer(crystal.pos, Neighbourhood(2.0).graph(crystal, widths(crystal)), crystal.z, widths(crystal))
    with raises("`reach` must be a positive length"):
        Graph.within(systems, 0.0)


@pytest.mark.slow
def test_users_do_not_see_what_torch_tells_pyg():
    code = "from mlopt.core.features.radial import RadialFeatures; print(RadialFeatures().width)"
    command = [sys.executable, "-W", "always", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) > 0 and "jit.script" not in done.stderr

"""Arguments, ends and paths that bands refuse, and in which words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from band_places import IMAGES, made, spins, unit

from mlopt.core.errors import InputError
from mlopt.core.landscapes.landscape import FunctionLandscape, Landscape
from mlopt.optimizers.bands.band import Band
from mlopt.optimizers.bands.string import String


def ends(place: Callable[[], tuple[Landscape, torch.Tensor, torch.Tensor]] = spins) -> dict[str, Any]:
    landscape, start, end = place()
    return {"landscape": landscape, "start": start, "end": end, "images": IMAGES}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"images": 0}, r"at least 3 images, the two ends included, but problem 0 has 0 between"),
        ({"images": [3, -1, 2]}, r"problem 1 has -1 between its ends"),
        ({"images": [3, 2]}, r"one for each of the 3 problems; got \[3, 2\]"),
        ({"climb": -1}, r"`climb` is the number of climbing images"),
        ({"nudge": "triple"}, r"`nudge` must be single, double or switched; got 'triple'"),
        (
            {"start": torch.zeros(6, 3)},
            r"the start must have shape \(7, d\) to fit the landscape, got \(6, 3\)",
        ),
        ({"end": torch.ones(7, 3).float()}, r"has left its manifold"),
    ],
)
def test_wrong_arguments(wrong: dict[str, Any], message: str) -> None:
    arguments = ends() | wrong
    with pytest.raises(InputError, match=message):
        Band(arguments.pop("landscape"), arguments.pop("start"), arguments.pop("end"), **arguments)


def test_wrong_ends() -> None:
    landscape, start, end = spins()
    same = end.clone()
    same[1:5] = start[1:5]
    with pytest.raises(InputError, match="start and end of problem 1 are the same point"):
        Band(landscape, start, same)
    lost = end.clone()
    lost[6, 1] = torch.nan
    with pytest.raises(InputError, match=r"row 1 of the end of problem 2 is not finite"):
        Band(landscape, start, lost)
    long = start.clone()
    long[5] *= 1.3
    with pytest.raises(InputError, match=r"row 0 of the start of problem 2 has left its manifold by 0.3"):
        Band(landscape, long, end)
    long[5] = 0.0
    with pytest.raises(InputError, match=r"row 0 of the start of problem 2 has (length 0|left)"):
        Band(landscape, long, end)
    with pytest.raises(InputError, match=r"one dtype and device, got torch.float64 on cpu and torch.float32"):
        Band(landscape, start, unit(end.float()))
    high = FunctionLandscape(
        lambda x, segments: segments.sum(1.0 / (x[:, :1] - x[:, :1])), landscape.segments
    )
    with pytest.raises(InputError, match="the start of problem 0 has no finite energy"):
        Band(high, start, end)


def test_wrong_paths() -> None:
    band, x = made("spins")
    with pytest.raises(
        InputError, match=r"the images must have shape \(35, d\) to fit the band, got \(34, 3\)"
    ):
        band.check(x[:-1])
    first = 3 + 2 * 4  # the third image of the second band
    lost = x.clone()
    lost[first + 1] = torch.inf
    with pytest.raises(InputError, match="row 1 of image 3 of problem 1 is not finite"):
        band.check(lost)
    long = x.clone()
    long[first + 3] *= 0.9
    with pytest.raises(InputError, match=r"row 3 of image 3 of problem 1 has left its manifold by 0.1.*0.9"):
        band.check(long)
    twice = x.clone()
    twice[first : first + 4] = twice[first - 4 : first]
    with pytest.raises(InputError, match="image 3 of problem 1 is the same point as image 2"):
        band.check(twice)
    twice[3:7] = band.start[1:5]
    with pytest.raises(InputError, match="image 1 of problem 1 is the same point as image 0"):
        band.check(twice)
    opposite = x.clone()
    opposite[first + 2] = -opposite[first - 2]
    with pytest.raises(InputError, match=r"row 2 of image 3 of problem 1 is opposite to that of image 2"):
        band.check(opposite)


def test_strings_have_neither_springs_nor_climbers() -> None:
    landscape, start, end = spins()
    with pytest.raises(InputError, match="a string has no `climb`; use a Band"):
        String(landscape, start, end).replace(climb=1)
    with pytest.raises(InputError, match="takes tangent, spring, climb and nudge, not 'images'"):
        Band(landscape, start, end).replace(images=3)

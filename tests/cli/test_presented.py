"""What a run wants its report to show: escaped, with units, from its own files alone, and with missing files named."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms

from mlopt.cli.report import balls
from mlopt.cli.report.exhibits import Image
from mlopt.cli.report.minima import minimum_of
from mlopt.cli.report.page import write_report
from mlopt.cli.report.presented import figures, spelled


def made(mlopt: Any, here: Path, *settings: str, strict: bool = False) -> tuple[Any, str]:
    (here / "showing.yaml").write_text("experiment: showing\n")
    sets = [part for one in settings for part in ("-s", one)]
    done = mlopt("run", "showing.yaml", "--out", "x", "--json", *sets, *(["--strict"] if strict else []))
    return done, (here / "x" / "report.html").read_text()


@pytest.mark.usefixtures("plugins")
def test_a_third_party_gets_a_full_report(mlopt: Any, here: Path) -> None:
    done, page = made(mlopt, here)
    assert done.code == 0, done.err
    assert "<h1>x: climbed</h1>" in page
    assert "<dt>barrier &lt;x&gt;</dt><dd>0.374485 eV<small>of &lt;y&gt;</small></dd>" in page
    assert "<dt>reduced</dt><dd>2</dd>" in page
    assert "<p>Not all was &lt;done&gt;.</p>" in page
    assert "<h2>Steps &lt;b&gt;</h2>" in page and "as &lt;it&gt; is" in page
    assert "energy (eV)" in page and ">1.235<" in page and ">–<" in page
    assert "391,000 [212,000–877,000]" in page and "&gt; 3,000" in page
    assert 'src="data:image/svg+xml;base64,' in page and "Curve &lt;c&gt;" in page
    assert page.count('<svg class="balls"') == 2 and "before &lt;p&gt;" in page
    # nothing comes from elsewhere, and nothing of a run is markup
    assert not re.search(r"<script|src=\"(?!data:)|<i>one|url\((?!#)", page)


@pytest.mark.usefixtures("plugins")
def test_the_numbers_are_those_of_a_plain_dictionary(mlopt: Any, here: Path) -> None:
    done, _ = made(mlopt, here)
    summary = json.loads((here / "x/results/summary.json").read_text())
    assert summary == {
        "experiment": "showing",
        "status": "finished",
        "barrier": 0.374485,
        "headline": "climbed",
    }
    assert set(json.loads(done.out)) == {*summary, "run_dir", "report"}


@pytest.mark.usefixtures("plugins")
def test_a_plain_dictionary_shows_what_it_drew(mlopt: Any, here: Path) -> None:
    done, _ = made(mlopt, here, "plain=true")
    (here / "x/results/page.json").unlink()  # as an older mlopt left it
    page = write_report(here / "x").read_text()
    assert done.code == 0 and "<h2>Curve</h2>" in page and "barrier" in page


@pytest.mark.usefixtures("plugins")
def test_a_plain_dictionary_of_today_shows_its_pictures(mlopt: Any, here: Path) -> None:
    _, page = made(mlopt, here, "plain=true")
    assert "<h2>Curve</h2>" in page


@pytest.mark.usefixtures("plugins")
def test_files_that_are_missing_or_outside_are_named(mlopt: Any, here: Path) -> None:
    _, page = made(mlopt, here, "missing=true")
    for name in ("curve.svg", "pair.xyz"):
        assert page.count(f"{name}: not shown, for there is no such file in the results") == 1
    assert "../config.resolved.yaml: not shown, for it is no file inside the results" in page
    assert "experiment: showing" not in page.split("<details>")[0]


@pytest.mark.usefixtures("plugins")
@pytest.mark.parametrize(
    ("content", "words"), [("[1", "cannot be read"), ('{"cards": 3}', "not what a run wrote")]
)
def test_a_damaged_page_leaves_a_report(mlopt: Any, here: Path, content: str, words: str) -> None:
    made(mlopt, here)
    (here / "x/results/page.json").write_text(content)
    page = write_report(here / "x").read_text()
    assert f"page.json: {words}" in page and "climbed" in page


@pytest.mark.usefixtures("plugins")
@pytest.mark.parametrize(("reached", "code"), [("true", 0), ("false", 3), ("null", 0)])
def test_strict_asks_the_summary(mlopt: Any, here: Path, reached: str, code: int) -> None:
    done, _ = made(mlopt, here, f"reached={reached}", strict=True)
    assert done.code == code
    assert ("not converged: it stayed below" in done.err) == bool(code)
    again = mlopt("resume", "x", "--strict")
    assert again.code == code, "the goal is remembered with the results"


@pytest.mark.parametrize(
    ("value", "decimals", "unit", "text"),
    [
        (0.374485, None, "eV", "0.374485 eV"),
        (0.374485, None, "eV, angstrom", "0.374485 eV"),
        (-16.505384, 6, "reduced", "-16.505384"),
        (None, None, "eV", "–"),
        (True, None, "", "yes"),
        (1234567, None, "", "1,234,567"),
        (float("nan"), None, "", "–"),
        (1.2e-20, None, "s", "1.2e-20 s"),
    ],
)
def test_values_for_people(value: Any, decimals: int | None, unit: str, text: str) -> None:
    assert spelled(value, decimals, unit) == text


@pytest.mark.parametrize(
    ("width", "wide"), [("460.8pt", False), ("518.4pt", True), ("1000", True), ("90%", False)]
)
def test_a_wide_picture_is_not_made_as_narrow_as_a_phone(width: str, wide: bool) -> None:
    content = f'<svg xmlns=\'http://www.w3.org/2000/svg\' width="{width}" height="9pt"/>'.encode()
    page = figures([Image("a", "", "image/svg+xml", content)])
    assert ('class="drawn wide"' in page) is wide


def test_stages_of_one_motion_are_seen_alike() -> None:
    """An atom that does not move stands at one place and has one size in all pictures."""
    stages = [Atoms("Ar4", [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0.5, 0.5, z]]) for z in (-1.0, 0.0, 1.0)]
    for stage in stages:
        stage.positions -= np.mean(stages[1].positions, axis=0)
    minima = [minimum_of(one, i) for i, one in enumerate(stages)]
    drawn = balls.pictures_alike(minima, ["a", "b", "c"])
    sizes = [set(re.findall(r' r="([\d.]+)"', svg)) for svg in drawn]
    assert sizes[0] == sizes[1] == sizes[2] and len(sizes[0]) == 1

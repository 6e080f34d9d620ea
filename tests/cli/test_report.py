"""The report: every kind of run gives a sound page, and nothing in a run's files can put code into it."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.cluster import Icosahedron, Octahedron
from ase.io import write

from mlopt.cli.report.files import number
from mlopt.cli.report.page import write_report
from mlopt.cli.report.read import read_record
from mlopt.core.errors import RunDirectoryError
from mlopt.core.runs.directory import RunDirectory, Status

TARGET = -173.928427
CONFIG = """experiment: search
system: {cluster: Ar38}
potential: {name: lennard-jones, epsilon: 1.0, r0: 1.0}
optimizer: {name: basin-hopping, temperature: 0.8, step: 0.36, quench: {name: lbfgs}}
starts: 64
budget: {force_calls: 200000}
seed: 0
"""


def clusters() -> list[Atoms]:
    """Structures of 38 atoms: the truncated octahedron, and two icosahedra that lack atoms."""
    shell = Icosahedron("Ar", 3, latticeconstant=1.6)
    order = np.argsort(np.linalg.norm(shell.positions - shell.positions.mean(axis=0), axis=1), kind="stable")
    whole = Octahedron("Ar", 4, cutoff=1, latticeconstant=1.56)
    others = [
        Atoms("Ar38", positions=shell.positions[np.r_[order[:13], order[k : k + 25]]]) for k in (13, 30)
    ]
    return [Atoms("Ar38", positions=whole.positions), *others]


def fake_run(
    folder: Path,
    n_starts: int = 64,
    *,
    target: float | None = TARGET,
    mean: float = 1.2e6,
    budget: int = 200_000,
    failed: int = 0,
    structures: list[Atoms] | None = None,
    status: str = "finished",
    config: str = CONFIG,
    seed: int = 0,
) -> Path:
    """Write what a search leaves: starts whose first hits are exponential, minima below a noisy way down."""
    generator = np.random.default_rng(seed)
    (folder / "results").mkdir(parents=True)
    (folder / "config.resolved.yaml").write_text(config)
    (folder / "env.json").write_text(json.dumps({"python": "3.11", "versions": {"torch": "2.13"}}))
    (folder / "STATUS.json").write_text(json.dumps({"state": status, "updated": "2026-01-01T00:00:00Z"}))
    bottom = TARGET if target is None else target
    levels = bottom + np.array([0.0, 0.676, 0.77, 0.79, 1.1, 1.4, 1.7, 2.2, 2.9])
    grid = np.unique(np.geomspace(1, budget, 90).astype(int))
    trace = np.full((len(grid), n_starts), np.nan)
    starts: list[dict[str, Any]] = []
    for i in range(n_starts):
        hit = int(generator.exponential(mean)) + 150
        reached = target is not None and hit <= budget
        energy = float(levels[0] if reached else generator.choice(levels[1:], p=np.ones(8) / 8))
        slack = 0.19 * abs(bottom) * (grid / 80.0) ** -0.62 * generator.lognormal(0, 0.5, len(grid))
        way = np.minimum.accumulate(np.maximum(energy + slack, energy + 0.6 * reached + 1e-4 * (not reached)))
        way[grid < 60] = 1e4 * generator.lognormal(0, 1, int((grid < 60).sum()))
        trace[:, i] = np.minimum.accumulate(np.where(reached & (grid >= hit), energy, way))
        row = {
            "index": i,
            "energy": float(trace[-1, i]),
            "fmax": 3e-3,
            "calls": budget,
            "quenches": budget // 40,
        }
        row |= {"first_hit": hit if reached else None, "reason": "budget", "polished_energy": energy}
        if i >= n_starts - failed:
            row |= {"energy": None, "fmax": None, "calls": 210, "first_hit": None, "reason": "non-finite"}
            row["polished_energy"] = None
            trace[:, i] = np.nan
        starts.append(row)
    results = folder / "results"
    (results / "starts.json").write_text(json.dumps(starts))
    energies = [[None if math.isnan(e) else e for e in row] for row in trace.tolist()]
    (results / "trace.json").write_text(json.dumps({"calls": grid.tolist(), "energy": energies}))
    finite = [row["polished_energy"] for row in starts if row["polished_energy"] is not None]
    summary = {"experiment": "search", "status": status, "best_energy": min(finite, default=None)}
    summary |= {"target_energy": target, "starts": n_starts, "wall_s": 812.4}
    (results / "summary.json").write_text(json.dumps(summary))
    images = []
    for rank, atoms in enumerate(clusters() if structures is None else structures):
        image = atoms.copy()
        image.info.update(
            point_group=["Oh", "C5v", "Cs"][rank % 3], hits=9 - rank, rank=rank + 1, start=rank, calls=99
        )
        image.calc = SinglePointCalculator(
            image, energy=float(levels[rank % 9]), forces=np.zeros((len(atoms), 3))
        )
        images.append(image)
    if images:
        write(results / "minima.extxyz", images, format="extxyz")
    return folder


class _Page(HTMLParser):
    """What a page holds: tags in order, text, and whether every tag was closed by its own."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def count(self, tag: str, **attributes: str) -> int:
        return sum(
            t == tag and all(a.get(k.rstrip("_")) == v for k, v in attributes.items()) for t, a in self.tags
        )


def report(folder: Path) -> tuple[str, _Page]:
    """Write and parse a report, and check what every report must satisfy."""
    text = write_report(folder).read_text(encoding="utf-8")
    for drawing in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ElementTree.fromstring(drawing)
        assert not re.search(r"\b(nan|inf|None)\b", re.sub(r"<title>.*?</title>", "", drawing))
    page = _Page(text)
    assert not {"script", "iframe", "img", "link", "object", "embed", "foreignobject"} & {
        t for t, _ in page.tags
    }
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]
        assert set(attributes) & {"href", "src"} <= {"href"}
        assert attributes.get("href") in (None, "results/minima.extxyz")
    assert "http" not in re.sub(r"http-equiv", "", text)
    assert len(text) < 1_500_000
    return text, page


def headline(text: str) -> str:
    """Return the sentence at the top."""
    found = re.search(r"<h1>(.*?)</h1>", text)
    assert found
    return found[1]


def test_report_of_a_search_tells_the_outcome(tmp_path: Path) -> None:
    """All sections, in order, and the estimate of the sentence from the starts' own numbers."""
    text, page = report(fake_run(tmp_path / "run"))
    starts = json.loads((tmp_path / "run/results/starts.json").read_text())
    hits = [row["first_hit"] for row in starts if row["first_hit"] is not None]
    mean = (sum(hits) + 200_000 * (64 - len(hits))) / len(hits)
    assert headline(text).startswith(
        f"LJ38: reached the target -173.928427 in {len(hits)} of 64 starts; mean "
    )
    assert f"mean {float(f'{mean:.3g}'):,.0f} force calls to first hit [95% " in headline(text)
    order = ["Energy against force calls", "Distribution of minima", "Success curve", "Unique minima"]
    order += ["Starts (64)", "Configuration", "Environment", "All numbers of the run", "Reproduce"]
    places = [page.text.index(title) for title in order]
    assert places == sorted(places)
    assert "mlopt run config.resolved.yaml" in page.text and "basin-hopping" in page.text
    # A line a start; one dot a hit; three pictures of 38 atoms each.
    assert sum(page.count("path", class_=kind) for kind in ("best", "reached", "other")) == 64 + 1
    assert len(re.findall(r'<circle class="(?:best|reached)"', text)) == len(hits)
    assert page.count("svg", class_="balls") == 3
    assert (
        len(re.findall(r"<circle [^>]*url\(#ball[0-9a-f]{6}\)\"/><circle|<circle [^>]*url\(#ball", text))
        >= 3 * 38
    )


def test_report_is_a_function_of_the_files(tmp_path: Path) -> None:
    """Written again it is the same, byte for byte, and leaves nothing else behind."""
    folder = fake_run(tmp_path / "run", 5)
    before = {path.name for path in folder.iterdir()}
    first = write_report(folder).read_bytes()
    assert write_report(folder).read_bytes() == first
    assert {path.name for path in folder.iterdir()} == before | {"report.html"}


def test_every_text_is_escaped(tmp_path: Path) -> None:
    """Names from configuration, files and folders cannot put tags or attributes into the page."""
    evil = "<script>alert(1)</script>\"' onload='x'><img src=http://evil/>"
    config = json.dumps({"system": {"cluster": evil}, "potential": {"name": evil}, evil: evil})
    folder = fake_run(tmp_path / "<b onclick='x'>&run@2", 4, structures=[Octahedron("Au", 3)], config=config)
    results = folder / "results"
    starts = json.loads((results / "starts.json").read_text())
    (results / "starts.json").write_text(json.dumps([{**row, "reason": evil} for row in starts]))
    summary = {"experiment": evil, "status": evil, "units": evil, "target_energy": TARGET, evil: evil}
    (results / "summary.json").write_text(json.dumps(summary))
    (folder / "env.json").write_text(json.dumps({evil: {evil: evil}}))
    (folder / "STATUS.json").write_text(json.dumps({"state": evil, "message": evil, "updated": evil}))
    minima = (results / "minima.extxyz").read_text()
    (results / "minima.extxyz").write_text(
        minima.replace("point_group=Oh", 'point_group="<script>alert(2)</script>"')
    )
    text = write_report(folder).read_text(encoding="utf-8")
    page = _Page(text)
    assert not {"script", "img", "b onclick"} & {tag for tag, _ in page.tags}
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert "<script>alert(1)</script>" in page.text and "<script>alert(2)</script>" in page.text


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"n_starts": 1, "target": None}, r"LJ38: lowest energy -17\d\.\d{6} in 1 start"),
        (
            {"n_starts": 1, "mean": 900.0},
            r"LJ38: reached the target .* in 1 of 1 start; mean [\d,]+ force calls",
        ),
        ({"n_starts": 40, "target": None}, r"LJ38: lowest energy -17\S+ in 40 starts, found by \d+ of them"),
        (
            {"n_starts": 30, "mean": 500.0},
            r"LJ38: reached the target -173.928427 in 30 of 30 starts; mean \d+ force",
        ),
        (
            {"n_starts": 20, "mean": 1e12},
            r"did not reach the target -173.928427 in 20 starts; lowest -17\S+, 0\.\d+ above; "
            r"a hit takes more than 1,\d{3},000 force calls on average \[95%\]",
        ),
        ({"n_starts": 6, "failed": 6, "structures": []}, r"Ar38: no finite energy in 6 starts"),
        ({"n_starts": 0, "structures": []}, r"Ar38: finished"),
    ],
)
def test_headline_of_every_outcome(tmp_path: Path, settings: dict[str, Any], sentence: str) -> None:
    """One start, no target, all hits, no hits, all failed, nothing."""
    text, page = report(fake_run(tmp_path / "run", **settings))
    assert re.fullmatch(f"(LJ38: )?{sentence}.*", headline(text))
    has_curve = settings.get("target", TARGET) is not None and settings["n_starts"] > settings.get(
        "failed", 0
    )
    assert ("Success curve" in page.text) is has_curve


def test_failed_starts_are_counted_and_left_out(tmp_path: Path) -> None:
    """NaN as text, null and infinity alike; the others are shown as usual."""
    folder = fake_run(tmp_path / "run", 12, failed=3)
    starts = json.loads((folder / "results/starts.json").read_text())
    starts[-1]["energy"], starts[-2]["energy"], starts[-2]["fmax"] = math.nan, math.inf, math.nan
    (folder / "results/starts.json").write_text(json.dumps(starts))
    _, page = report(folder)
    assert "3 failed (not finite)" in page.text and "3 without a finite energy are left out" in page.text
    assert "energy or force became NaN or infinite" in page.text


def test_report_of_150_starts_is_small(tmp_path: Path) -> None:
    """Also with pictures of 147 atoms."""
    structures = [Atoms("Ar147", positions=Icosahedron("Ar", 4, latticeconstant=1.6).positions)] * 6
    text, _ = report(fake_run(tmp_path / "run", 150, structures=structures))
    assert len(text) < 500_000


def test_report_while_the_run_goes_on(tmp_path: Path) -> None:
    """Says so, and copes with each file missing or torn in the middle."""
    for name in ("summary.json", "starts.json", "trace.json", "minima.extxyz"):
        for torn in (False, True):
            folder = fake_run(tmp_path / f"{name}-{torn}", 8, status="running")
            path = folder / "results" / name
            if torn:
                path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            else:
                path.unlink()
            _, page = report(folder)
            assert "The run goes on: these are the numbers so far." in page.text
            assert (f"{name}: " in page.text) is torn


def test_report_of_a_killed_run(tmp_path: Path) -> None:
    """Its status file says running for ever, but nobody holds the directory."""
    RunDirectory.create(tmp_path / "run", config_resolved=CONFIG)
    (tmp_path / "run/STATUS.json").write_text(json.dumps(asdict(Status("running"))))
    _, page = report(tmp_path / "run")
    assert "The run ended early (killed)" in page.text and "no results yet" in page.text


def test_a_hit_by_the_polish_is_drawn(tmp_path: Path) -> None:
    """Polishing comes after the last call of the search: the line and the axis go on to it."""
    folder = fake_run(tmp_path / "run", 3, mean=1e12)
    starts = json.loads((folder / "results/starts.json").read_text())
    starts[1] |= {"first_hit": 260_000, "polished_energy": TARGET}
    (folder / "results/starts.json").write_text(json.dumps(starts))
    text, _ = report(folder)
    assert "start 1: -173.928427 after 260,000 calls, target reached at 260,000" in text
    dot = re.search(r'<circle class="best" cx="([\d.]+)"', text)
    assert dot and float(dot[1]) == pytest.approx(650, abs=0.1)


def test_report_of_another_kind_of_run(tmp_path: Path) -> None:
    """No starts at all: status, numbers and configuration remain."""
    (tmp_path / "results").mkdir()
    (tmp_path / "config.resolved.yaml").write_text("experiment: fit\n")
    (tmp_path / "results/summary.json").write_text(
        json.dumps({"status": "finished", "rmse": {"energy": 0.012}})
    )
    _, page = report(tmp_path)
    assert "rmse.energy 0.012" in page.text and "goes on" not in page.text


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    """With what to give instead."""
    with pytest.raises(
        RunDirectoryError, match=r"not a run directory .* Give the folder that `mlopt run` made"
    ):
        write_report(tmp_path)
    with pytest.raises(RunDirectoryError, match="no such run directory"):
        write_report(tmp_path / "missing")


def test_units_and_target_of_the_run(tmp_path: Path) -> None:
    """From the summary; while there is none, from the configuration."""
    folder = fake_run(tmp_path / "run", 2, config="potential: {name: gupta}\ntarget: {energy: -180}\n")
    assert read_record(folder).units == "eV" and read_record(folder).starts.target == TARGET
    (folder / "results/summary.json").write_text(json.dumps({"units": "kJ/mol"}))
    assert read_record(folder).units == "kJ/mol" and read_record(folder).starts.target == -180
    for units, shown in (("reduced", "reduced units"), ("eV, angstrom", "eV")):
        (folder / "results/summary.json").write_text(json.dumps({"units": units}))
        assert read_record(folder).units == shown
    (folder / "config.resolved.yaml").write_text("potential: morse\n")
    (folder / "results/summary.json").unlink()
    assert read_record(folder).units == "reduced units" and read_record(folder).starts.target is None


def test_point_group_t_survives_the_file_format(tmp_path: Path) -> None:
    """In extended xyz a bare T is a boolean."""
    folder = fake_run(tmp_path / "run", 2)
    path = folder / "results/minima.extxyz"
    path.write_text(path.read_text().replace("point_group=Oh", "point_group=T"))
    assert read_record(folder).minima[0].point_group == "T"


def test_numbers_are_finite_floats_or_nothing() -> None:
    """Whatever JSON or ASE give."""
    assert [number(v) for v in (1, np.float64(2), np.int64(3))] == [1.0, 2.0, 3.0]
    odd = [True, np.bool_(True), "1", None, math.nan, np.inf, 10**400, [1], np.ones(2)]
    assert [number(v) for v in odd] == [None] * len(odd)

"""The commands around a run: init, validate, list, info, plugins, status, report, doctor."""

from __future__ import annotations

import json
import os
import socket

import pytest

from mlopt.cli.configs import sources
from mlopt.core.plugins import registry
from mlopt.core.runs.config import load_experiment, read_yaml

RECIPES = sources.recipe_paths()
# Cambridge Cluster Database (Lennard-Jones; Morse with rho0 = 6)
ENERGIES = {
    ("lennard-jones", "Ar13"): -44.326801,
    ("lennard-jones", "Ar19"): -72.659782,
    ("lennard-jones", "Ar31"): -133.586422,
    ("lennard-jones", "Ar38"): -173.928427,
    ("lennard-jones", "Ar55"): -279.248470,
    ("lennard-jones", "Ar75"): -397.492331,
    ("lennard-jones", "Ar98"): -543.665361,
    ("morse", "Ar38"): -157.477108,
}


@pytest.mark.parametrize("name", RECIPES)
def test_recipes(name):
    config = read_yaml(RECIPES[name].read_text(encoding="utf-8"))
    assert len(sources.describe(RECIPES[name])) > 20, "the first line says what it is"
    if config["experiment"] == "search":
        key = (config["potential"]["name"], config["system"]["cluster"])
        assert config["target"]["energy"] == ENERGIES[key]
    assert config.get("seed", 0) == 0


@pytest.mark.parametrize("name", [*RECIPES, "the template"])
def test_recipes_are_valid(name, search):
    text = RECIPES.get(name, sources.TEMPLATE).read_text(encoding="utf-8")
    load_experiment(read_yaml(text), name)


def test_init_writes_the_template(mlopt, here):
    result = mlopt("init")
    assert result.code == 0 and "mlopt run search.yaml" in result.out
    assert (here / "search.yaml").read_text() == sources.TEMPLATE.read_text()


def test_init_writes_a_recipe(mlopt, here):
    assert mlopt("init", "lj38").code == 0
    assert mlopt("init", "lj38", "-o", "other.yaml").code == 0
    for name in ("lj38.yaml", "other.yaml"):
        assert (here / name).read_text() == RECIPES["lj38"].read_text()


def test_init_to_stdout(mlopt, here):
    assert mlopt("init", "lj38", "-o", "-").out == RECIPES["lj38"].read_text()
    assert not list(here.iterdir())


def test_init_never_overwrites(refuse, here):
    (here / "lj38.yaml").write_text("precious")
    refuse(["init", "lj38"], "lj38.yaml exists already", "-o")
    refuse(["init", "-o", "lj38.yaml"], "exists already")
    refuse(["init", "-o", "no/where.yaml"], "cannot be written", "No such")


def test_validate(mlopt, here, plugins):
    (here / "good.yaml").write_text("experiment: sines\n")
    (here / "bad.yaml").write_text("experiment: sines\nsteps: 0\nstep: 1\n")
    assert mlopt("validate", "good.yaml").out == "good.yaml: ok (settings, files, potential and device)\n"
    assert mlopt("validate", "--quick", "good.yaml").out == "good.yaml: ok (settings alone)\n"
    result = mlopt("validate", "good.yaml", "bad.yaml")
    assert result.code == 2 and result.out.startswith("good.yaml: ok (")
    assert "bad.yaml: steps: " in result.err and "Did you mean 'steps'?" in result.err


def test_validate_tries_what_a_run_would(mlopt, here, plugins):
    (here / "odd.yaml").write_text("experiment: sines\nforbidden: true\n")
    assert mlopt("validate", "--quick", "odd.yaml").code == 0
    result = mlopt("validate", "odd.yaml")
    assert result.code == 2 and "switch it off" in result.err and not result.out
    told = json.loads(mlopt("validate", "odd.yaml", "--quick", "--json").out)
    assert told["checked"] == "settings alone"


def test_validate_with_overrides(mlopt, here, plugins):
    (here / "good.yaml").write_text("experiment: sines\n")
    assert mlopt("validate", "good.yaml", "-s", "steps=3").code == 0
    assert mlopt("validate", "good.yaml", "-s", "steps=x").code == 2


def test_validate_json(mlopt, here, plugins):
    (here / "bad.yaml").write_text("experiment: sines\nsteps: 0\nstep: 1\n")
    told = json.loads(mlopt("validate", "bad.yaml", "--json").out)
    assert told["status"] == "error"
    assert [len(one["problems"]) for one in told["configs"]] == [2]


def test_list_shows_all_kinds(mlopt, plugins):
    result = mlopt("list")
    assert result.code == 0
    for kind in registry.GROUPS:
        assert f"{kind}:\n" in result.out
    assert "sines" in result.out and "broken" in result.out, "nothing is imported, so nothing can break"
    assert "lj38" in result.out


@pytest.mark.parametrize("word", ["experiment", "experiments", "Experiments"])
def test_list_one_kind(mlopt, plugins, word):
    result = mlopt("list", word)
    assert "sines" in result.out and "lj38" not in result.out


def test_list_recipes(mlopt):
    lines = mlopt("list", "recipes").out.splitlines()
    names = [line.split()[0] for line in lines]
    assert names.index("lj13") < names.index("lj38") < names.index("lj98")
    assert "truncated octahedron" in lines[names.index("lj38")]


def test_list_json(mlopt, plugins):
    told = json.loads(mlopt("list", "query_strategies", "--json").out)
    assert list(told) == ["query-strategy"]
    told = json.loads(mlopt("list", "moves", "--json").out)
    assert {"name": "sub", "distribution": "mlopt-test-plugins", "version": "1.0"} in told["move"]


def test_list_unknown_kind(refuse):
    refuse(["list", "optimisers"], "no kind is called 'optimisers'", "Did you mean 'optimizer'?")


def test_info(mlopt, plugins):
    result = mlopt("info", "sines")
    assert result.code == 0
    for words in (
        "experiment sines  (mlopt-test-plugins 1.0)",
        "Add up sines.",
        "steps: integer, default 10, >= 1",
        "sleep: number, default 0.0, >= 0, in s",
        "after each step",
        "target: number or null, default null",
        "'no' or 'input'",
        "sub: group\n",
        "sub.depth: integer, default 1, >= 1, <= 9, in m",
        "how deep",
    ):
        assert words in result.out, words


def test_info_json(mlopt, plugins):
    told = json.loads(mlopt("info", "sines", "--json").out)
    settings = {one["name"]: one for one in told["settings"]}
    assert settings["sub.depth"] == {
        "name": "sub.depth",
        "type": "integer",
        "required": False,
        "default": 1,
        "unit": "m",
        "limits": ">= 1, <= 9",
        "doc": "how deep",
    }
    assert told["kind"] == "experiment" and told["doc"] == "Add up sines."


def test_info_of_nested_plugins(mlopt, search):
    result = mlopt("info", "search")
    for words in (
        "potential: potential, required",
        "target: group or null",
        "target.energy: number, required",
    ):
        assert words in result.out
    assert "moves: list of move" in mlopt("info", "basin-hopping").out


@pytest.mark.parametrize("name", ["mtp", "schnet", "behler-parrinello", "potential:committee"])
def test_info_of_a_fitted_potential_leaves_out_what_python_alone_gives(mlopt, name):
    result = mlopt("info", name)
    assert result.code == 0 and "Settings:" in result.out and "theta" not in result.out.split("Settings:")[1]


def test_info_of_an_ambiguous_name(mlopt, plugins, refuse):
    refuse(["info", "sub"], "several", "`mlopt info move:sub`", "`mlopt info experiment:sub`")
    assert mlopt("info", "move:sub").out.startswith("move sub")
    assert mlopt("info", "sub", "--kind", "experiment").out.startswith("experiment sub")


def test_info_of_a_recipe(mlopt):
    assert mlopt("info", "lj38").out == RECIPES["lj38"].read_text()
    assert json.loads(mlopt("info", "recipe:lj38", "--json").out)["kind"] == "recipe"


def test_info_refuses(plugins, refuse):
    refuse(["info", "sinus"], "Did you mean 'sines'?", "mlopt list")
    refuse(["info", "experiment:broken"], "failed to import", "no such [library]")
    refuse(["info", "twice"], "Two distributions", "mlopt-test-rival")
    refuse(["info", "stranger"], "not an mlopt Plugin")
    refuse(["info", "nokind:sub"], "No kind of plugin is called 'nokind'")
    refuse(["info", "recipe:nothing"], "is not a recipe")


def test_plugins_imports_none(mlopt, plugins):
    result = mlopt("plugins")
    assert result.code == 0
    assert "mlopt_test_raises:X" in result.out


def test_built_in_plugins_are_sound(mlopt):
    told = json.loads(mlopt("plugins", "--check", "--json").out)
    assert [row for row in told["plugins"] if row["problem"]] == []


def test_status(mlopt, here, plugins, quick):
    (here / "mine.yaml").write_text("experiment: sines\ntrouble: signal\n")
    mlopt("run", "mine.yaml", "--out", "x")
    result = mlopt("status", "x")
    assert result.code == 0
    for words in ("preempted", "stopped by SIGTERM", "checkpoints", "50 %", "mlopt resume x"):
        assert words in result.out, words
    told = json.loads(mlopt("status", "x", "--json").out)
    assert (told["state"], told["checkpoints"], told["run_dir"]) == ("preempted", 1, str(here / "x"))


def test_status_of_a_killed_run(mlopt, here, plugins, quick):
    from mlopt.core.runs.directory import RunDirectory

    run = RunDirectory.create(here / "x", config_resolved="a: 1\n")
    with run.lock():
        run.write_status("running")
    assert json.loads(mlopt("status", "x", "--json").out)["state"] == "killed"
    assert f"process {os.getpid()} on {socket.gethostname()} ended without a word" in mlopt("status", "x").out


def test_report_command(mlopt, here, plugins, quick):
    (here / "mine.yaml").write_text("experiment: sines\n")
    mlopt("run", "mine.yaml", "--out", "x")
    (here / "x" / "report.html").unlink()
    result = mlopt("report", "x")
    assert result.code == 0 and result.out.strip() == str(here / "x" / "report.html")


def test_a_report_elsewhere(mlopt, here, plugins):
    """On a read-only disk, whose message says to choose another place with --out."""
    (here / "mine.yaml").write_text("experiment: sines\n")
    mlopt("run", "mine.yaml", "--out", "x")
    result = mlopt("report", "x", "--out", "elsewhere.html")
    assert result.code == 0, result.err
    assert "<html" in (here / "elsewhere.html").read_text()


def test_real_report(mlopt, here, plugins):
    (here / "mine.yaml").write_text("experiment: sines\n")
    mlopt("run", "mine.yaml", "--out", "x")
    assert "sines" in (here / "x" / "report.html").read_text()


def test_doctor(mlopt, search):
    result = mlopt("doctor", "--json")
    told = {one["what"]: one for one in json.loads(result.out)["findings"]}
    for name in (
        "python",
        "torch",
        "plugins",
        "device",
        "threads",
        "compiled kernels",
        "sqlite",
        "this folder",
    ):
        assert told[name]["found"] and not told[name]["remedy"], told[name]
    assert result.code == 0


def test_doctor_says_what_to_do(mlopt, monkeypatch):
    monkeypatch.setattr("mlopt.core.plugins.registry.entries", lambda kind=None: [])
    result = mlopt("doctor")
    assert result.code == 1
    assert "!!  plugins" in result.out and "reinstall the mlopt packages" in result.out


def test_doctor_tells_where_kernels_are_not_kept(mlopt, monkeypatch, here):
    (here / "file").write_text("")
    monkeypatch.setenv("MLOPT_CACHE", str(here / "file"))
    result = mlopt("doctor")
    assert result.code == 1 and "!!  compiled kernels" in result.out and "set MLOPT_CACHE" in result.out


def test_doctor_survives_a_broken_package(mlopt, monkeypatch):
    def fail() -> int:
        raise ImportError("libtorch.so is gone")

    import torch

    monkeypatch.setattr(torch, "get_num_threads", fail)
    result = mlopt("doctor")
    assert result.code == 1 and "libtorch.so is gone" in result.out and "this folder" in result.out


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["run", "good.yml"], ["neither a file nor a recipe", "Did you mean 'good.yaml'?"]),
        (["good.yaml"], ["No command", "Write `mlopt run good.yaml`"]),
        (["lj13"], ["No command", "Write `mlopt run lj13`"]),
        (["help"], ["No command", "Write `mlopt --help`"]),
        (["run", "a.xyz"], ["is a structure file, not a configuration", "`system: a.xyz`", "`mlopt init`"]),
    ],
)
def test_slips_of_a_newcomer(refuse, here, args, words):
    (here / "good.yaml").write_text("experiment: search\n")
    (here / "a.xyz").write_text("1\n\nAr 0 0 0\n")
    refuse(args, *words)

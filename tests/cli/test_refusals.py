"""Bad input: exit code 2, one clear message that says what to do, and nothing written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

CONFIG = """
experiment: search
system: {cluster: Ar13}
potential: {name: lennard-jones, epsilon: 1.0}
optimizer: {name: basin-hopping, quench: {name: lbfgs}}
starts: 2
budget: {force_calls: 100}
"""

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)

# text of the configuration -> what the message must say
BAD_TEXTS = {
    "empty": ("", ["is empty", "mlopt init"]),
    "only comments": ("# nothing\n", ["is empty"]),
    "a list": ("- 1\n- 2\n", ["top level is a list"]),
    "a word": ("hello", ["top level is the value hello"]),
    "not YAML": ("a: [1, 2", ["line 2, column 1", "not valid YAML"]),
    "tab": ("a:\n\tb: 1", ["line 2", "not valid YAML"]),
    "twice the same key": (CONFIG + "starts: 3\n", ["line 8", "duplicate key starts"]),
    "no experiment": ("starts: 3\n", ["experiment", "is required", "search"]),
    "unknown experiment": ("experiment: serch\n", ["'serch'", "Did you mean 'search'?"]),
    "billion laughs": (BOMB, ["line 1", "anchors and aliases"]),
    "deep": ("a: " + "[" * 5000, ["nested more than 50"]),
    "large": ("a: " + "x" * 1_000_001, ["larger than 1,000,000 bytes"]),
    "python tag": ("a: !!python/object/apply:os.system [echo hello]", ["line 1", "tags such as"]),
    "environment": ("a: ${oc.env:HOME}", ["${oc.env:HOME}", "is not replaced"]),
    "import path": ("experiment: os.path:join\n", ["'os.path:join'", "No experiment"]),
    "two documents": (CONFIG + "---\na: 1\n", ["second document"]),
    "control character": ("a: \x07", ["not valid YAML"]),
    "not a number": (CONFIG + "fmax: .nan\n", ["fmax", "finite"]),
}

# override -> what the message must say
BAD_SETTINGS = {
    "strats=3": ["strats", "unknown key 'strats'", "Did you mean 'starts'?"],
    "optimizer.temprature=1": ["optimizer.temprature", "Did you mean 'temperature'?"],
    "optimizer.quench.stepp=1": ["optimizer.quench.stepp", "unknown key"],
    "optimizer=basin-hoping": ["optimizer", "Did you mean 'basin-hopping'?"],
    "optimizer={temperature: 1.0}": ["optimizer", "name"],
    "optimizer=3": ["optimizer", "got 3"],
    "potential=mlopt_test_plugins:Sines": ["potential", "no potential is called"],
    "starts=0": ["starts", "greater than or equal to 1", "got 0"],
    "starts=many": ["starts", "valid integer", "got 'many'"],
    "starts=1.5": ["starts", "integer", "1.5"],
    "starts=yes": ["starts", "integer"],
    "starts=[1]": ["starts", "integer"],
    "budget.force_calls=-5": ["budget.force_calls", "greater than or equal to 1", "-5"],
    "budget=5": ["budget"],
    "optimizer.temperature=-1": ["optimizer.temperature", "greater than or equal to 0"],
    "optimizer.temperature=.inf": ["optimizer.temperature", "finite"],
    "target.tolerance=1": ["target.energy", "required"],
    "target={energy: -1.0, stop: soon}": ["target.stop", "'never', 'start' or 'run'", "'soon'"],
    "dtype=float16": ["dtype", "'float64' or 'float32'"],
    "seed=-1": ["seed", "greater than or equal to 0"],
    "device=tpu7": ["device", "'tpu7'", "cpu"],
    "device=cuda:9": ["device", "cuda:9"],
    "fmax=0.01": ["fmax", "local optimizers only"],
    "system={cluster: Ax13}": ["system.cluster", "'Ax'"],
    "system={cluster: 13}": ["system.cluster"],
    "system={cluster: Ar0}": ["system.cluster", "no atoms"],
    "system={}": ["system", "one of `cluster`", "`file`"],
    "system={cluster: Ar2, file: a.xyz}": ["system", "one of `cluster`"],
    "starts": ["key=value"],
    "=3": ["key=value"],
    "starts.few=3": ["starts is 2"],
    "a=${oc.env:HOME}": ["${...}"],
}

LATTICE = 'Lattice="5 0 0 0 5 0 0 0 5" Properties=species:S:1:pos:R:3 pbc="T T T"'
FREE = "Properties=species:S:1:pos:R:3"

# name and content of a structure file -> what the message must say
BAD_STRUCTURES = {
    "missing": ("a.xyz", None, ["no such", "a.xyz"]),
    "empty": ("a.xyz", "", ["empty"]),
    "malformed": ("a.xyz", "two\nhello\nAr 0 0 0\n", []),
    "truncated": ("a.xyz", f"3\n{FREE}\nAr 0 0 0\n", []),
    "not a number": ("a.xyz", f"2\n{FREE}\nAr 0 0 0\nAr nan 0 0\n", ["atom 1", "nan"]),
    "infinite": ("a.xyz", f"2\n{FREE}\nAr 0 0 0\nAr 0 inf 0\n", ["atom 1", "inf"]),
    "unknown element": ("a.xyz", f"2\n{FREE}\nAr 0 0 0\nQq 0 0 1\n", ["Qq"]),
    "coincident": ("a.xyz", f"3\n{FREE}\nAr 0 0 0\nAr 2 0 0\nAr 2 0 0\n", ["atoms 1", "2", "separate"]),
    "no atoms": ("a.xyz", f"0\n{FREE}\n", []),
    "singular cell": ("a.xyz", f"1\n{LATTICE.replace('0 0 5', '0 5 0')}\nAr 0 0 0\n", ["not independent"]),
    "unknown format": ("a.exe", "MZ", [".exe"]),
    "binary": ("a.xyz", "\x00\x01\x02", []),
}


@pytest.fixture
def config(here: Path, search: None) -> str:
    (here / "mine.yaml").write_text(CONFIG)
    return "mine.yaml"


@pytest.mark.parametrize("case", BAD_TEXTS)
def test_bad_text(here, refuse, search, case):
    text, words = BAD_TEXTS[case]
    (here / "mine.yaml").write_text(text)
    for command in (["run"], ["validate"], ["run", "--out", "x"]):
        refuse([*command, "mine.yaml"], "mine.yaml: ", *words)


@pytest.mark.parametrize("assignment", BAD_SETTINGS)
def test_bad_setting(config, refuse, assignment):
    refuse(["run", config, "--out", "x", "-s", assignment], *BAD_SETTINGS[assignment])


def test_all_mistakes_at_once(config, refuse):
    wrong = ["starts=0", "strats=1", "budget.force_calls=none", "optimizer.quench.memory=0"]
    args = [part for one in wrong for part in ("-s", one)]
    refuse(
        ["run", config, *args], "starts: ", "strats: ", "budget.force_calls: ", "optimizer.quench.memory: "
    )


@pytest.mark.parametrize("case", BAD_STRUCTURES)
def test_bad_structure(config, here, refuse, case):
    name, content, words = BAD_STRUCTURES[case]
    if content is not None:
        (here / name).write_text(content)
    refuse(["run", config, "--out", "x", "-s", f"system={{file: {name}}}"], str(here / name), *words)
    refuse(["validate", config, "-s", f"system={{file: {name}}}"], str(here / name), *words)


def test_species_without_parameters(config, here, refuse):
    (here / "a.xyz").write_text(f"2\n{FREE}\nAr 0 0 0\nNe 0 0 3\n")
    args = ["run", config, "--out", "x", "-s", "system={file: a.xyz}"]
    refuse([*args, "-s", "potential={name: ase, calculator: emt}"], "Ne", "Change the system")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable(config, here, refuse):
    (here / config).chmod(0)
    refuse(["run", config], "cannot be read")


def test_not_text(here, refuse):
    (here / "mine.yaml").write_bytes(b"a: \xff\xfe")
    refuse(["run", "mine.yaml"], "not text in UTF-8")


def test_folder_as_configuration(here, refuse):
    (here / "mine").mkdir()
    refuse(["run", "mine"], "mine: cannot be read", "directory")


@pytest.mark.parametrize(
    "name", ["../lj13", "/lj13", "recipes/lj13", "lj13.yaml", "..", "lj\0", "x" * 5000, ""]
)
def test_recipes_cannot_lead_elsewhere(refuse, name):
    for command in ("run", "init", "validate"):
        refuse([command, name])


def test_near_recipe(refuse):
    refuse(["run", "lj-38"], "'lj-38' is neither a file nor a recipe", "Did you mean 'lj38'?")
    refuse(["init", "lj-38"], "'lj-38' is not a recipe", "Did you mean 'lj38'?")


@pytest.mark.parametrize("taken", ["file", "foreign", "run"])
def test_directory_that_is_not_ours(config, here, refuse, mlopt, taken):
    place = here / "x"
    if taken == "file":
        place.write_text("precious")
    elif taken == "foreign":
        place.mkdir()
        (place / "thesis.tex").write_text("precious")
    else:
        from mlopt.core.runs.directory import RunDirectory

        RunDirectory.create(place, config_resolved="a: 1\n")
    words = {"file": "is a file", "foreign": "thesis.tex", "run": f"mlopt resume {place}"}
    refuse(["run", config, "--out", "x"], str(place), words[taken], "another --out")


def test_unusable_names(config, refuse):
    for out in ("x\0y", "x" * 300, "~nobody-of-that-name/x"):
        refuse(["run", config, "--out", out], "--out")


@pytest.mark.parametrize(
    "option",
    [["--threads", "0"], ["--threads", "x"], ["--checkpoint-every", "-1"], ["--checkpoint-every", "nan"]],
)
def test_bad_options(config, refuse, option):
    refuse(["run", config, *option], option[0].strip("-").split("-")[0])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("broken", ["failed to import", "no such [library]", "mlopt-test-plugins"]),
        ("leaving", ["failed to import", "SystemExit"]),
        ("missing", ["failed to import", "No module named"]),
        ("number", ["not a class"]),
        ("stranger", ["not an Experiment"]),
        ("sub", ["not an Experiment"]),
        ("raising", ["a plugin failed", "surprise"]),
        ("stubborn", ["do not survive", "Stubborn"]),
        ("sinus", ["Did you mean 'sines'?"]),
    ],
)
def test_bad_plugins(here, plugins, refuse, name, words):
    (here / "mine.yaml").write_text(f"experiment: {name}\n")
    refuse(["run", "mine.yaml", "--out", "x"], *words)


def test_check_refuses(here, plugins, refuse):
    (here / "mine.yaml").write_text("experiment: sines\nforbidden: true\n")
    refuse(["run", "mine.yaml"], "switch it off")
    refuse(["validate", "mine.yaml"], "switch it off")


def test_validate_says_what_run_says(config, here, mlopt):
    (here / "a.xyz").write_text(f"2\n{FREE}\nAr 0 0 0\nNe 0 0 3\n")
    faults = [
        "system={file: a.xyz}",
        "system=absent.xyz",
        "device=cuda:77",
        "start={name: given}",
        "starts=0",
    ]
    for fault in faults:
        args = [config, "-s", "potential={name: ase, calculator: emt}", "-s", fault]
        told = [mlopt(command, *args) for command in ("run", "validate")]
        assert [one.code for one in told] == [2, 2] and told[0].err == told[1].err, fault


@pytest.mark.parametrize("name", ["x" * 5000, "a\x1b[2J\u2028\u202eb" * 50])
@pytest.mark.parametrize(
    "words",
    [
        ["{}"],
        ["run", "{}"],
        ["run", "lj13", "-s", "{}"],
        ["run", "lj13", "-s", "{}=1"],
        ["run", "lj13", "-s", "optimizer={}"],
        ["run", "lj13", "-s", "system.cluster={}"],
        ["run", "lj13", "--{}"],
        ["run", "lj13", "--out", "~{}/x"],
        ["run", "lj13", "--threads", "{}"],
        ["validate", "{}"],
        ["init", "{}"],
        ["info", "{}"],
        ["list", "{}"],
        ["resume", "{}"],
        ["status", "{}"],
        ["export", "{}", "--out", "x.extxyz"],
        ["report", "{}"],
    ],
)
def test_absurd_names_are_shortened_and_printable(mlopt, words: list[str], name: str) -> None:
    result = mlopt(*[word.replace("{}", name) for word in words])
    assert result.code == 2, result
    lines = (result.out + result.err).split("\n")
    assert all(len(line) < 1000 and line.isprintable() for line in lines), max(lines, key=len)
    assert len(result.out + result.err) < 2500

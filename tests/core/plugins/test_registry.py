"""The registry: lists without importing, loads one, and says what is wrong with the others."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from mlopt.core.errors import PluginError
from mlopt.core.plugins import registry

ENTRY_POINTS = """
[mlopt.potentials]
zz-good = zz_registry_good:Good
zz-nested = zz_registry_good:Good.Inner
zz-raises = zz_registry_raises:X
zz-exits = zz_registry_exits:X
zz-missing = zz_registry_nowhere:X
zz-attribute = zz_registry_good:Absent
zz-number = zz_registry_good:number
zz-twice = zz_registry_good:Good
"""


def distribution(folder: Path, name: str, text: str) -> None:
    info = folder / f"{name.replace('-', '_')}-2.5.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.5\n")
    (info / "entry_points.txt").write_text(text)


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    (tmp_path / "zz_registry_good.py").write_text("class Good:\n    class Inner: pass\nnumber = 3\n")
    (tmp_path / "zz_registry_raises.py").write_text("raise ValueError('half\\nbaked')\n")
    (tmp_path / "zz_registry_exits.py").write_text("import sys; sys.exit('bye')\n")
    distribution(tmp_path, "zz-plugins", ENTRY_POINTS)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("zz_registry")]:
        del sys.modules[name]


def test_listing_imports_nothing(plugins):
    found = {entry.name: entry for entry in registry.entries("potential")}
    assert set(found) >= {"zz-good", "zz-raises", "zz-exits", "zz-missing"}
    assert found["zz-good"] == registry.Entry(
        "potential", "zz-good", "zz_registry_good:Good", "zz-plugins", "2.5"
    )
    assert not [name for name in sys.modules if name.startswith("zz_registry")]


def test_entries_are_sorted(plugins):
    kinds = [entry.kind for entry in registry.entries()]
    assert sorted(kinds, key=list(registry.GROUPS).index) == kinds
    names = [entry.name for entry in registry.entries("potential")]
    assert names == sorted(names)


def test_loading_imports_one(plugins):
    assert registry.load("potential", "zz-good").__name__ == "Good"
    assert registry.load("potential", "zz-nested").__name__ == "Inner"
    assert [name for name in sys.modules if name.startswith("zz_registry")] == ["zz_registry_good"]


def test_name_of(plugins):
    good = registry.load("potential", "zz-nested")
    assert registry.name_of("potential", good) == "zz-nested"
    assert registry.name_of("optimizer", good) is None


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("zz-raises", "ValueError: half"),
        ("zz-exits", "SystemExit: bye"),
        ("zz-missing", "ModuleNotFoundError: No module named 'zz_registry_nowhere'"),
        ("zz-attribute", "has no attribute 'Absent'"),
    ],
)
def test_broken_plugin(plugins, name, words):
    with pytest.raises(PluginError) as raised:
        registry.load("potential", name)
    message = str(raised.value)
    for part in (
        f"mlopt.potentials plugin {name!r}",
        "zz_registry_",
        "zz-plugins 2.5",
        "failed to import",
        words,
    ):
        assert part in message
    assert message.endswith("Reinstall, update or uninstall zz-plugins.")
    assert raised.value.exit_code == 2


def test_not_a_class(plugins):
    with pytest.raises(PluginError, match=r"is 'int', not a class\. Tell the authors of zz-plugins"):
        registry.load("potential", "zz-number")


def test_unknown_name(plugins):
    with pytest.raises(PluginError) as raised:
        registry.find("potential", "zz-god")
    assert "No potential is called 'zz-god'. Did you mean 'zz-good'? Installed: " in str(raised.value)
    with pytest.raises(PluginError) as raised:
        registry.find("potential", "()")
    assert "Did you mean" not in str(raised.value)


def test_unknown_kind():
    for function in (registry.entries, lambda kind: registry.load(kind, "x")):
        with pytest.raises(
            PluginError, match=r"No kind of plugin is called 'potentials'\. Kinds: potential, "
        ):
            function("potentials")


def test_two_owners(plugins):
    distribution(plugins, "zz-rival", "[mlopt.potentials]\nzz-twice = zz_registry_good:Other\n")
    with pytest.raises(PluginError) as raised:
        registry.load("potential", "zz-twice")
    assert "Two distributions register the potential 'zz-twice'" in str(raised.value)
    assert "zz-plugins (zz_registry_good:Good)" in str(raised.value)
    assert "zz-rival (zz_registry_good:Other)" in str(raised.value)
    assert registry.load("potential", "zz-good").__name__ == "Good", "the others still work"


def test_same_distribution_seen_twice(plugins, tmp_path_factory, monkeypatch):
    """An editable and a normal install of one distribution are one."""
    again = tmp_path_factory.mktemp("again")
    distribution(again, "zz-plugins", ENTRY_POINTS)
    monkeypatch.syspath_prepend(again)
    importlib.invalidate_caches()
    assert registry.load("potential", "zz-twice").__name__ == "Good"


def test_only_installed_plugins_count(tmp_path):
    """A file in the working folder is no plugin: entry points are found by installed metadata alone."""
    (tmp_path / "potential.py").write_text("print('imported')")
    code = (
        "from mlopt.core.plugins import registry\n"
        "print([e for e in registry.entries() if e.distribution == 'unknown'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("kind", registry.GROUPS)
def test_built_ins_load(kind):
    for entry in registry.entries(kind):
        assert isinstance(registry.load(kind, entry.name), type)
        assert registry.name_of(kind, entry.load()) == entry.name


def test_built_ins_need_no_torch():
    code = (
        "import sys\nfrom mlopt.core.plugins import registry\n"
        "for entry in registry.entries():\n"
        "    if entry.distribution in ('mlopt-potentials', 'mlopt-optimizers', 'mlopt-cli'): entry.load()\n"
        "print([name for name in ('torch', 'ase', 'numba', 'torch_geometric') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_is_installed_meanwhile_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entry points are read again only when a folder that Python searches has changed."""

    def install(name: str) -> None:
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[mlopt.moves]\n{name} = nowhere:Move\n")

    def names() -> set[str]:
        return {entry.name for entry in registry.entries("move")}

    monkeypatch.syspath_prepend(str(tmp_path))
    install("first-of-two")
    assert "first-of-two" in names() and "second-of-two" not in names()
    install("second-of-two")
    assert {"first-of-two", "second-of-two"} <= names()

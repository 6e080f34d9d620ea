"""Configurations: YAML in, a validated experiment out.

A configuration may come from a stranger, so it is data only. Limits are checked on the stream of YAML events, before
anything is built. Anchors, tags and ``${...}`` are refused. Plugins are named by registered name, never by import path.

Invariant: for any text, the outcome is a validated object or a `ConfigError`.
"""

from __future__ import annotations

import enum
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlopt.core.errors import ConfigError, MloptError, PluginError
from mlopt.core.plugins import plugin, registry
from mlopt.core.quoting import QUOTED, one_line, quoted
from mlopt.core.runs.experiment import Experiment
from mlopt.core.runs.yaml_depth import too_deep

MAX_BYTES = 1_000_000
MAX_DEPTH = 50
_TOO_DEEP = f"nested more than {MAX_DEPTH} levels deep"

Config = dict[str, Any]


def read_file(path: str | os.PathLike[str]) -> tuple[str, Config]:
    """Return the text and the content of a configuration file."""
    source = os.fspath(path)
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise ConfigError([f"cannot be read: {reason}. Give a YAML file."], source) from error
    _check_size(len(data), source)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            [f"is not text in UTF-8 (byte {error.start}). Save it as UTF-8."], source
        ) from error
    return text, read_yaml(text, source)


def read_yaml(text: str, source: str = "") -> Config:
    """Parse a configuration; ``source`` names it in messages.

    The top level is a mapping with words as keys. Unlike in plain PyYAML, ``1e-3`` is a number, and a repeated key is
    an error.

    Raises:
        ConfigError: the text is no such configuration, or exceeds a limit.
    """
    value = _parse(text, source)
    if value is None:
        raise ConfigError(["is empty. Start from a template: `mlopt init`."], source)
    if not isinstance(value, dict):
        kind = "a list" if isinstance(value, list) else f"the value {_short(value)}"
        raise ConfigError([f"should hold `key: value` lines, but its top level is {kind}"], source)
    return value


def override(config: Mapping[str, Any], assignments: Sequence[str]) -> Config:
    """Return ``config`` with ``key.subkey=value`` assignments applied in order.

    Values are YAML: ``budget.force_calls=1000``, ``x=[1, 2]``, ``target=null``. A mapping such as ``optimizer={name:
    fire}`` replaces the former value and is not merged with it. A plugin given by its bare name becomes a mapping when
    one of its settings is assigned. A number in the path is an index into a list, from 0.

    Raises:
        ConfigError: an assignment is malformed, or its path does not exist.
    """
    changed: Config = _copy(config)
    problems = []
    for assignment in assignments:
        try:
            _assign(changed, assignment)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return changed


def load_experiment(config: Mapping[str, Any], source: str = "") -> Experiment:
    """Build the experiment that ``config`` describes.

    Raises:
        ConfigError: lists every mistake with its path.
    """
    settings = dict(config)
    name = settings.pop("experiment", None)
    if not isinstance(name, str):
        known = (
            ", ".join(sorted({entry.name for entry in registry.entries("experiment")})) or "none installed"
        )
        given = "is required" if name is None else f"should be a word, got {_short(name)}"
        raise ConfigError(
            [f"experiment: {given}: which kind of run? Write `experiment: NAME`, one of: {known}."], source
        )
    try:
        cls = registry.load("experiment", name)
    except PluginError as error:
        raise ConfigError([f"experiment: {error}"], source) from error
    if not issubclass(cls, Experiment):
        raise ConfigError([f"experiment: {quoted(name)} is a {cls.__name__}, not an Experiment"], source)
    try:
        built: Experiment = plugin.build(cls, settings, source)
    except ConfigError:
        raise
    except MloptError as error:
        raise ConfigError(str(error).splitlines(), source) from error
    except (
        Exception
    ) as error:  # a plugin's own validator may raise anything; it must not look like a crash of mlopt
        cause = f"{type(error).__name__}: {one_line(error, 300)}"
        problem = f"a plugin failed while it checked its settings ({cause}). Check these, or tell the plugin's authors."
        raise ConfigError([problem], source) from error
    return built


def resolved(experiment: Experiment) -> str:
    """Return the complete configuration of an experiment as YAML: every setting, defaults included."""
    name = registry.name_of("experiment", type(experiment)) or type(experiment).__name__
    return dump_yaml({"experiment": name} | experiment.config())


def dump_yaml(config: Mapping[str, Any]) -> str:
    """Return plain data as YAML that `read_yaml` reads back equal."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(_plain(config, "")))


def _parse(text: str, source: str) -> Any:
    """Parse YAML that stays within the limits."""
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        _check_size(len(text.encode("utf-8")), source)
        deep = too_deep(text, MAX_DEPTH)
        if deep is not None:
            raise ConfigError([f"line {deep}: {_TOO_DEEP}"], source)
        _check_events(text, source)
        # A dotlist's value may be any YAML: mapping, list or scalar; `create` would take a lone word for a key.
        parsed = OmegaConf.from_dotlist([f"value={text}"])
        holder: Any = OmegaConf.to_container(parsed, throw_on_missing=True)
        _check_values(holder["value"], "", source)
    except yaml.MarkedYAMLError as error:
        mark: Any = error.problem_mark or error.context_mark
        where = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "
        problem = one_line(error.problem or error.context, 200)
        raise ConfigError([f"{where}not valid YAML: {problem}"], source) from error
    except yaml.reader.ReaderError as error:
        raise ConfigError(
            [f"not valid YAML: {error.reason} at character {error.position}"], source
        ) from error
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, TypeError, RecursionError) as error:
        # ValueError and TypeError: a number too long for int(), a list as a key
        problem = one_line(error, 200) or type(error).__name__
        raise ConfigError([f"not a valid configuration: {problem}"], source) from error
    return holder["value"]


def _check_size(size: int, source: str) -> None:
    if size > MAX_BYTES:
        raise ConfigError([f"is larger than {MAX_BYTES:,} bytes: this is not a configuration"], source)


def _check_events(text: str, source: str) -> None:
    """Refuse anchors, tags and nesting without end, before anything is built from the text."""
    import yaml

    depth = 0
    documents = 0
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        line = f"line {event.start_mark.line + 1}: " if event.start_mark is not None else ""
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise ConfigError(
                    [f"{line}a second document begins (`---`); keep one configuration per file"], source
                )
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise ConfigError(
                [f"{line}anchors and aliases (`&`, `*`) are not allowed; write the value out"], source
            )
        tag = getattr(event, "tag", None)
        if tag:
            raise ConfigError(
                [f"{line}tags such as `{_short(tag)}` are not allowed; write plain values"], source
            )
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise ConfigError([f"{line}{_TOO_DEEP}"], source)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.ScalarEvent):
            if "${" in event.value:
                problem = (
                    f"{line}`{_short(event.value)}`: `${{...}}` is not replaced here; write the value itself"
                )
                raise ConfigError([problem], source)
            if event.value == "???":  # OmegaConf's mark, quoted or not
                raise ConfigError([f"{line}`???` stands for a value that is missing; fill it in"], source)


def _check_values(value: Any, path: str, source: str) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                where = f" in {_short(path)}" if path else ""
                raise ConfigError([f"the key {_short(key)}{where} is not a word; put it in quotes"], source)
            _check_values(item, f"{path}.{key}" if path else key, source)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_values(item, f"{path}.{index}", source)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ConfigError([f"{_short(path or 'the value')}: should be a finite number, got {value}"], source)


def _assign(config: Any, assignment: str) -> None:
    key, equals, text = assignment.partition("=")
    key = key.strip()
    steps = key.split(".")
    if not equals or not all(steps):
        raise ConfigError(
            [f"-s {_short(assignment)}: should be key=value, like `starts=10` or `optimizer.temperature=0.3`"]
        )
    try:
        value = _parse(text, "")
    except ConfigError as error:
        raise ConfigError([f"-s {_short(key)}: {problem}" for problem in error.problems]) from error
    here: Any = config
    for position, step in enumerate(steps):
        last = position == len(steps) - 1
        place: Any = step
        if isinstance(here, list):
            if not (step.isascii() and step.isdigit() and int(step) < len(here)):
                items = f"items 0 to {len(here) - 1}" if here else "no items"
                owner = _short(".".join(steps[:position]))
                raise ConfigError([f"-s {_short(key)}: {owner} is a list with {items}, not {quoted(step)}"])
            place = int(step)
        if last:
            here[place] = value
            return
        inner = here[place] if isinstance(here, list) else here.get(step)
        if inner is None:
            inner = {}
        elif isinstance(inner, str):
            inner = {"name": inner}
        elif not isinstance(inner, dict | list):
            whole = ".".join(steps[: position + 1])
            lacking = quoted(steps[position + 1])
            raise ConfigError(
                [f"-s {_short(key)}: {_short(whole)} is {_short(inner)}, which has no {lacking}"]
            )
        here[place] = inner
        here = inner


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list | tuple) else value


def _plain(value: Any, path: str) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{path}.{key}" if path else str(key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{path}.{index}") for index, item in enumerate(value)]
    if isinstance(value, enum.Enum):
        return _plain(value.value, path)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ConfigError([f"{_short(path)}: {type(value).__name__} cannot be written to a configuration file"])


def _short(value: Any) -> str:
    return one_line(value, QUOTED) if isinstance(value, str) else quoted(value)

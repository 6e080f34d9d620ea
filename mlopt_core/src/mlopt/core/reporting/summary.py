"""Summaries of finished runs: numbers for programs, and the content of the report for people.

An experiment's result has ``summary()``. A plain dictionary of numbers is enough. A `Summary` is such a dictionary that
also says whether the run failed or reached its goal. It lists the cards, tables and figures of the report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self, TypeAlias

from mlopt.core.errors import PluginError
from mlopt.core.reporting.statistics import Estimate

#: a value on a card or in a cell; an `Estimate` is shown with its interval, None as a dash
Value: TypeAlias = str | int | float | bool | Estimate | None


@dataclass(frozen=True)
class Card:
    """One number at the top of the report, with its unit and a few words below it."""

    label: str
    value: Value
    unit: str = ""
    note: str = ""


@dataclass(frozen=True)
class Column:
    """The heading of a column: its unit, and the decimals of its numbers (None: six digits)."""

    title: str
    unit: str = ""
    decimals: int | None = None


@dataclass(frozen=True)
class Table:
    """Rows of values under headings.

    Raises:
        PluginError: a row does not have one cell for each column.
    """

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Value]]
    caption: str = ""

    def __post_init__(self) -> None:
        for place, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise PluginError(
                    f"table {self.title!r} of a summary: row {place} has {len(row)} cells, and there are "
                    f"{len(self.columns)} columns. Give each row one cell for each column, None where there is nothing"
                )


@dataclass(frozen=True)
class Figure:
    """An SVG or PNG ``file`` that the run has written into its results."""

    title: str
    file: str
    caption: str = ""


@dataclass(frozen=True)
class Structure:
    """One frame of a structure ``file`` in the results, counted from 0; -1 is the last."""

    file: str
    frame: int = 0
    label: str = ""


@dataclass(frozen=True)
class Gallery:
    """Structures that the report draws as balls, side by side and from one direction."""

    title: str
    structures: Sequence[Structure]
    caption: str = ""


class Summary(dict[str, Any]):
    """The numbers of a run by name, as ``mlopt run --json`` prints them, and what its report shows.

    numbers: JSON data. A list of mappings is shown as a table where no ``tables`` are given. A report makes the card of
        the time from ``wall_s`` and ``compile_s`` (seconds), ``force_calls`` and ``engine``. It takes ``units`` as the
        units of energies. mlopt itself writes ``experiment``, ``status``, ``headline`` and ``failure``.
    headline: the outcome in one line without its subject, such as "barrier 0.37 eV".
    failure: the reason why the run failed though it came to its end, such as "every start did"; empty where it did not.
    reached: whether the run reached its target or converged; None where it has no goal that could be missed.
    missed: the words for a run that missed its goal, such as "no start reached the target".
    cards, tables, figures: the content of the report, in this order.
    remarks: sentences below the cards, such as what was not done and why.
    """

    def __init__(
        self,
        numbers: Mapping[str, Any],
        *,
        headline: str = "",
        failure: str = "",
        reached: bool | None = None,
        missed: str = "",
        cards: Sequence[Card] = (),
        tables: Sequence[Table] = (),
        figures: Sequence[Figure | Gallery] = (),
        remarks: Sequence[str] = (),
    ) -> None:
        kind = {name: numbers[name] for name in ("experiment",) if name in numbers}
        first = kind | {"status": "failed" if failure else "finished"}
        super().__init__(first | dict(numbers) | first)
        if headline:
            self["headline"] = headline
        if failure:
            self["failure"] = failure
        self.reached = reached
        self.missed = missed or "the run did not reach its goal"
        self.cards = tuple(cards)
        self.tables = tuple(tables)
        self.figures = tuple(figures)
        self.remarks = tuple(remarks)

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Summary:
        """Return a summary as it is, and a plain dictionary as a summary of numbers alone."""
        return told if isinstance(told, Summary) else cls(told, failure=_failure(told))

    @property
    def headline(self) -> str:
        """The outcome in one line; empty if the run gives none."""
        return str(self.get("headline") or "")

    @property
    def failure(self) -> str:
        """The reason why the run failed although it came to its end; empty if it did not fail."""
        return str(self.get("failure") or "")

    def failed(self, why: str) -> Summary:
        """Return this summary as that of a run that failed."""
        return type(self).with_page(self | {"failure": why}, self.page())

    def of_kind(self, experiment: str) -> Summary:
        """Return this summary with the registered name of its kind of run, in front of all numbers."""
        return type(self).with_page(self | {"experiment": experiment}, self.page())

    def page(self) -> dict[str, Any]:
        """Return everything except the numbers as plain data, which `with_page` reads."""
        return {
            "reached": self.reached,
            "missed": self.missed,
            "remarks": list(self.remarks),
            "cards": [asdict(card) for card in self.cards],
            "tables": [asdict(table) for table in self.tables],
            "figures": [asdict(figure) for figure in self.figures],
        }

    @classmethod
    def with_page(cls, numbers: Mapping[str, Any], page: Mapping[str, Any]) -> Self:
        """Return the summary of numbers and a page from files.

        Raises:
            TypeError, KeyError, ValueError, PluginError: the data are no such page.
        """
        reached = page["reached"]
        if reached is not None and not isinstance(reached, bool):
            raise TypeError(f"`reached` is {reached!r}, not true, false or null")
        return cls(
            numbers,
            failure=_failure(numbers),
            reached=reached,
            missed=_text(page["missed"]),
            remarks=[_text(one) for one in page["remarks"]],
            cards=[_card(one) for one in page["cards"]],
            tables=[_table(one) for one in page["tables"]],
            figures=[_figure(one) for one in page["figures"]],
        )


def _failure(numbers: Mapping[str, Any]) -> str:
    """Return the reason for a failure from the numbers, or an empty string."""
    why = str(numbers.get("failure") or "")
    return why or ("the run failed" if numbers.get("status") == "failed" else "")


def _card(data: Mapping[str, Any]) -> Card:
    return Card(**_texts(data, "label", "unit", "note"), value=_value(data["value"]))


def _table(data: Mapping[str, Any]) -> Table:
    columns = [Column(**_texts(one, "title", "unit"), decimals=_decimals(one)) for one in data["columns"]]
    rows = [[_value(cell) for cell in row] for row in data["rows"]]
    return Table(**_texts(data, "title", "caption"), columns=columns, rows=rows)


def _figure(data: Mapping[str, Any]) -> Figure | Gallery:
    if "structures" not in data:
        return Figure(**_texts(data, "title", "file", "caption"))
    structures = [
        Structure(**_texts(one, "file", "label"), frame=int(one["frame"])) for one in data["structures"]
    ]
    return Gallery(**_texts(data, "title", "caption"), structures=structures)


def _decimals(data: Mapping[str, Any]) -> int | None:
    given = data["decimals"]
    return None if given is None else min(max(int(given), 0), 15)


def _value(given: Any) -> Value:
    if isinstance(given, Mapping):
        return Estimate(*(_bound(given[name]) for name in ("mean", "low", "high")))
    if given is None or isinstance(given, str | int | float):
        return given
    raise TypeError(f"{type(given).__name__} is no value of a card or a cell")


def _bound(given: Any) -> float:
    return float("inf") if given is None else float(given)  # JSON has no infinity


def _texts(data: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: _text(data[name]) for name in names}


def _text(given: Any) -> str:
    if not isinstance(given, str):
        raise TypeError(f"{given!r} is no text")
    return given

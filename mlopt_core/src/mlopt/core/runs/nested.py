"""The context of runs inside a run, one after the other, such as the searches of a contest."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from mlopt.core.runs.checkpoint import Checkpoint
from mlopt.core.runs.experiment import Context
from mlopt.core.runs.session import Session


class NestedContext(Context):
    """The surroundings of runs inside a run.

    Its checkpoints are those of the outer run. Each holds the number of the inner run, what that run saves, and what
    the outer run remembers. Step numbers continue from one inner run to the next, so a later checkpoint always has a
    higher number. The experiment of the inner runs need not know that it is inside another::

        session = Session(context)
        table = Table.of(session.restored)
        nested = NestedContext(session, "search", table.to_checkpoint)
        for number in range(nested.number, len(searches)):
            nested.begin(f"search {number}", of=len(searches))
            table.add(searches[number].run(nested))
            nested.end()

    session: the session of the outer run.
    name: the inner run's name in a checkpoint, both the key of its entry in ``meta`` and the prefix of its tensors.
    carried: a function that returns the data of the outer run. Forbidden names of data are ``number``, ``step``,
        ``last``, the given ``name``, and any that begins with ``name`` and a point.
    column: the name of an inner run's label in rows of metrics.

    number: the number of the inner run to begin or to resume, counted from 0.
    """

    def __init__(
        self, session: Session, name: str, carried: Callable[[], Checkpoint], column: str = "part"
    ) -> None:
        self._session, self._outer, self._carried = session, session.context, carried
        self._name, self._prefix, self._column = name, f"{name}.", column
        self._label, self._of, self._to_follow = "", 1, 0
        self.number = 0
        self._before = 0  # the number from which the inner run's own steps count
        self._last = 0  # the highest that has been given out
        self._found: Checkpoint | None = None
        if session.restored is not None:
            self._restore(session.restored)

    def _restore(self, restored: Checkpoint) -> None:
        meta = restored.meta
        self.number, self._before = int(meta["number"]), int(meta["step"])
        self._last = self._before
        if self._name in meta:
            tensors = {
                key.removeprefix(self._prefix): one
                for key, one in restored.tensors.items()
                if key.startswith(self._prefix)
            }
            self._found = Checkpoint(tensors, meta[self._name])
            # An inner run may have ended before the stop and save nothing more, so the number has to come from here.
            # Versions that did not keep it only had searches inside, whose calls say it.
            self._last = int(meta.get("last", self._before + int(self._found.meta.get("calls", 0))))

    def begin(self, label: str, *, of: int, calls_to_follow: int = 0) -> None:
        """Begin the next inner run.

        label: its name for people, and in metrics. of: number of inner runs.
        calls_to_follow: maximal number of force calls of the inner runs after it.
        """
        self._label, self._of, self._to_follow = label, of, calls_to_follow

    def end(self) -> None:
        """End the inner run and save a checkpoint. Call it after the data of ``carried`` include its outcome."""
        self.number, self._before, self._found = self.number + 1, self._last + 1, None
        self._last = self._before
        self._save(self._before, Checkpoint({}, {}))

    @property
    def run_id(self) -> str:
        return self._outer.run_id

    @property
    def stopping(self) -> bool:
        return self._outer.stopping

    @property
    def interrupted(self) -> bool:
        return self._outer.interrupted

    @property
    def seconds_left(self) -> float:
        return self._outer.seconds_left

    @property
    def calls_to_follow(self) -> int:
        return self._to_follow + self._outer.calls_to_follow

    def pause(self) -> bool:
        return self._outer.pause()

    def restored(self) -> Checkpoint | None:
        return self._found

    def save(self, step: int, checkpoint: Checkpoint) -> None:
        number = self._numbered(step)
        tensors = {self._prefix + key: one for key, one in checkpoint.tensors.items()}
        self._save(number, Checkpoint(tensors, {self._name: checkpoint.meta, "last": self._last}))

    def _save(self, number: int, inner: Checkpoint) -> None:
        carried, place = self._carried(), {"number": self.number, "step": self._before}
        self._session.save(number, inner.tensors | carried.tensors, inner.meta | carried.meta | place)

    def metric(self, step: int, **values: float | int | str | None) -> None:
        within = values.pop(self._column, None)  # that of a run inside the inner one
        label = self._label if within is None else f"{self._label}: {within}"
        self._outer.metric(self._numbered(step), **{self._column: label}, **values)

    def _numbered(self, step: int) -> int:
        self._last = max(self._last, self._before + step)
        return self._before + step

    def progress(self, done: float, message: str) -> None:
        self._outer.progress((self.number + done) / self._of, f"{self._label}: {message}")

    def log(self, message: str) -> None:
        self._outer.log(f"{self._label}: {message}")

    def results(self) -> Path | None:
        """Return the inner run's folder inside the results of the outer run."""
        folder = self._outer.results()
        if folder is None:
            return None
        name = re.sub(r"[^A-Za-z0-9.-]+", "-", f"{self.number + 1:02d}-{self._label}").strip("-")
        path = folder / name
        path.mkdir(parents=True, exist_ok=True)
        return path

"""One sitting of a run: the checkpoint it resumes from, its identity, the total time, saving and leaving."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mlopt.core.errors import CheckpointError, PluginError
from mlopt.core.files.atomic import JSON
from mlopt.core.quoting import quoted
from mlopt.core.runs.checkpoint import Checkpoint
from mlopt.core.runs.experiment import Context, Preempted

if TYPE_CHECKING:
    import torch

#: entries of a checkpoint's ``meta`` that are the session's, not the experiment's
_IDENTITY, _SECONDS, _COMPILING = "system", "seconds", "compile_seconds"
KEPT = (_IDENTITY, _SECONDS, _COMPILING)


class Session:
    """One sitting of a run; a run that is stopped or killed, and resumed, has several.

    An experiment opens a session when its run begins, resumes from ``restored``, and saves through the session::

        session = Session(context)
        total, step = torch.zeros(()), 0
        if session.restored is not None:
            total, step = session.restored.tensors["total"], session.restored.meta["step"]
        while step < self.steps:
            step += 1
            total = total + ...
            if session.context.pause():
                session.save(step, {"total": total}, {"step": step})
                session.leave_if_asked()

    context: the surroundings of the run; None for a plain `Context`.
    identity: the subject of the run, such as the digest of its structure; checkpoints store it.

    restored: the checkpoint to resume from, as the experiment saved it; None at the start of a run.
    compile_seconds: time spent on compiling, over all sittings; ``seconds`` does not include it.

    Raises:
        CheckpointError: the checkpoint to resume from has another identity.
    """

    def __init__(self, context: Context | None = None, identity: str | None = None) -> None:
        self.context = Context() if context is None else context
        self.restored: Checkpoint | None = None
        self.compile_seconds = 0.0
        self._identity, self._before, self._began = identity, 0.0, time.monotonic()
        found = self.context.restored()
        if found is None:
            return
        if found.meta.get(_IDENTITY) != identity:
            raise CheckpointError(
                "the checkpoint is of another structure: has the structure file changed? Put it back as it was, or "
                "start a new run"
            )
        # contests of older versions kept no time, and no version before compiling was counted apart kept that
        self._before = float(found.meta.get(_SECONDS, 0.0))
        self.compile_seconds = float(found.meta.get(_COMPILING, 0.0))
        meta = {name: value for name, value in found.meta.items() if name not in KEPT}
        self.restored = Checkpoint(found.tensors, meta)

    @property
    def seconds(self) -> float:
        """The seconds that the run has taken over all sittings, without compiling."""
        return self._before + time.monotonic() - self._began

    def compiled(self, seconds: float) -> None:
        """Record the seconds of compiling. Call it once, before the first step, from which on time counts."""
        self.compile_seconds += seconds
        self._began = time.monotonic()

    def save(
        self, step: int, tensors: Mapping[str, torch.Tensor], meta: Mapping[str, JSON] | None = None
    ) -> None:
        """Save a checkpoint of ``tensors`` and ``meta``, with the identity and the time of the run.

        step: orders checkpoints and rows of metrics; record the rows of a step before its checkpoint.

        Raises:
            PluginError: ``meta`` has an entry of a name that the session uses.
        """
        taken = [name for name in KEPT if meta and name in meta]
        if taken:
            raise PluginError(
                f"Session.save(meta=...): {quoted(taken[0])} is kept by the session itself; name that entry otherwise"
            )
        own: dict[str, JSON] = {_SECONDS: self.seconds, _COMPILING: self.compile_seconds}
        if self._identity is not None:
            own[_IDENTITY] = self._identity
        self.context.save(step, Checkpoint(dict(tensors), {**(meta or {}), **own}))

    def asked_to_leave(self) -> bool:
        """Return whether the run has to stop; it serves as ``pause`` for work that a resume repeats."""
        return self.context.stopping

    def leave_if_asked(self) -> None:
        """Leave the run if it has to stop; call it after `save`.

        Raises:
            Preempted: the run has to stop.
        """
        if self.context.stopping:
            raise Preempted

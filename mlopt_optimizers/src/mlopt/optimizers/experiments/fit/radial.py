"""The radial coefficients of the candidate that a scan has taken, fitted before its last solve."""

from __future__ import annotations

from mlopt.core.protocols.fittable import FittablePotential
from mlopt.core.runs.session import Session
from mlopt.optimizers.experiments.fit.candidate import Candidate
from mlopt.optimizers.fitting.projected import RadialFit

#: evaluations between two rows of the metrics
_EVERY = 10


def fit_radial(
    session: Session,
    search: RadialFit[FittablePotential],
    *,
    first_step: int,
    done: list[Candidate],
    share: float,
) -> FittablePotential:
    """Run ``search`` to its end, and return the potential with the radial coefficients that it has found.

    first_step: a number beyond those of all checkpoints before.
    done: the candidates, which checkpoints keep as well.
    share: the share of the whole run that is over.

    Raises:
        Preempted: the run was asked to stop; a checkpoint has been saved.
    """
    restored = session.restored
    if restored is not None and "radial" in restored.meta:
        search.load_checkpoint(restored.tensors, restored.meta["radial"])
    while not search.done:
        until = (search.evaluations // _EVERY + 1) * _EVERY
        search.advance(session.context.pause, until)
        step, whole = first_step + search.evaluations, search.done or search.evaluations == until
        if whole:
            session.context.metric(step, loss=search.loss, evaluations=search.evaluations)
            told = f"radial coefficients, {search.evaluations} evaluations, loss {search.loss:.4g}"
            part = search.evaluations / search.driver.stop.force_calls
            session.context.progress(share + (1.0 - share) * part, told)
        if search.done or not whole or session.context.pause():
            tensors, meta = search.to_checkpoint()
            told_of = [one.plain() for one in done]
            session.save(step, tensors, {"candidates": told_of, "parts": 0, "radial": meta})
            session.leave_if_asked()
    return search.result()

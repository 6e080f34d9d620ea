"""Statistics of searches, from starts that reached the target and starts that ran out of budget.

Each start has ``calls``, the force calls for which it was watched. It also has ``first_hit``, the calls at which it
reached the target, or None. A start without a hit is *censored*: its first hit takes longer than ``calls``. If such
starts are left out, or counted as hits at their budget, a search looks faster than it is.

A start that cannot go on (a descent that converged elsewhere, a non-finite energy) will never hit. For a success curve
give it ``calls = math.inf``. Otherwise the curve assumes that it would have gone on like the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from mlopt.core.errors import InputError


@dataclass(frozen=True)
class Estimate:
    """A number and its confidence interval; ``mean`` and ``high`` are infinite where only a lower bound is known."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class SuccessCurve:
    """The fraction of starts that have reached the target, as steps: a value holds from its ``calls`` to the next.

    low, high: a pointwise confidence band. end: calls up to which the curve is known.
    """

    calls: tuple[float, ...]
    fraction: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    end: float

    def quantile(self, fraction: float) -> float | None:
        """Return the calls within which this fraction of starts reaches the target; None if it is unknown."""
        if not 0 < fraction <= 1:
            raise InputError(f"`quantile(fraction=...)` must be above 0 and at most 1, got {fraction!r}")
        # The product of the factors (n - d) / n is exact to rounding only.
        return next(
            (n for n, f in zip(self.calls, self.fraction, strict=True) if f >= fraction - 1e-12), None
        )


def mean_calls_to_hit(
    first_hits: Sequence[float | None], calls: Sequence[float], confidence: float = 0.95
) -> Estimate:
    """Return the mean force calls to the first hit, with its chi-square interval.

    The mean is the number of all calls before a hit, or without one, divided by the number of hits. It is the expected
    cost of one hit when starts are run one after the other, whatever the distribution. If a hit is equally likely at
    every call, it is also the maximum likelihood estimate; the interval assumes this. The interval is exact if every
    start hit, or if the run ended at a hit. Where budgets ran out it is too wide. Without a hit the mean is infinite
    and ``low`` is a one-sided bound.

    Source: B. Epstein and M. Sobel, J. Am. Stat. Assoc. 48 (1953) 486; W. Q. Meeker and L. A. Escobar, "Statistical
    Methods for Reliability Data" (1998), section 7.7.

    >>> mean_calls_to_hit([100, 300, None], [1000, 1000, 800]).mean
    600.0
    """
    from scipy.special import gammaincinv

    spans, hits = _spans(first_hits, calls, "mean_calls_to_hit")
    if not all(math.isfinite(span) for span in spans):
        raise InputError(
            "`mean_calls_to_hit(calls=...)`: must be finite; give the force calls that were spent"
        )
    total, n_hits = float(sum(spans)), sum(hits)
    tail = (1 - _checked(confidence)) / 2
    if n_hits == 0:
        return Estimate(math.inf, -total / math.log(2 * tail), math.inf)
    # A chi-square quantile with k degrees of freedom is 2 gammaincinv(k / 2, p). Calls spent after the last hit
    # could have brought one more: hence the extra half.
    shape = n_hits if n_hits == len(hits) else n_hits + 1
    low = total / float(gammaincinv(shape, 1 - tail))
    return Estimate(total / n_hits, low, total / float(gammaincinv(n_hits, tail)))


def wilson(successes: float, trials: float, confidence: float = 0.95) -> Estimate:
    """Return a proportion with its score interval, which stays within 0 and 1 and is sound for few trials.

    Source: E. B. Wilson, J. Am. Stat. Assoc. 22 (1927) 209. Both arguments may be fractional (an effective size).

    >>> wilson(0, 10).low, round(wilson(0, 10).high, 3)
    (0.0, 0.278)
    """
    if not (trials > 0 and 0 <= successes <= trials):
        raise InputError(
            f"`wilson`: needs 0 <= successes <= trials and trials > 0, got {successes!r} of {trials!r}"
        )
    z2 = NormalDist().inv_cdf(0.5 + _checked(confidence) / 2) ** 2
    p = successes / trials
    centre = (p + z2 / (2 * trials)) / (1 + z2 / trials)
    half = math.sqrt(z2 * (p * (1 - p) / trials + z2 / (4 * trials**2))) / (1 + z2 / trials)
    # At the ends the bound is 0 or 1 exactly; rounding must not say otherwise.
    return Estimate(
        p, 0.0 if successes == 0 else max(0.0, centre - half), 1.0 if p == 1 else min(1.0, centre + half)
    )


def kaplan_meier(
    first_hits: Sequence[float | None], calls: Sequence[float], confidence: float = 0.95
) -> SuccessCurve:
    """Return the fraction of starts that have reached the target against force calls, with a band.

    The curve is the product-limit estimate. The band is Wilson's interval, with the number of starts that gives
    Greenwood's variance. Without censoring it is Wilson's interval at each number of calls. Unlike Greenwood's own
    band, it has a width before the first hit and after the last.

    Source: E. L. Kaplan and P. Meier, J. Am. Stat. Assoc. 53 (1958) 457; the band: K. J. Rothman, J. Chronic Dis. 31
    (1978) 557.

    >>> kaplan_meier([100, 300, None, None], [500, 500, 500, 500]).fraction
    (0.0, 0.25, 0.5)
    """
    spans, hits = _spans(first_hits, calls, "kaplan_meier")
    at_risk = len(spans)
    surviving, greenwood, effective = 1.0, 0.0, float(at_risk)
    steps = [(0.0, 0.0, 0.0, wilson(0, at_risk, confidence).high)]
    for n in sorted(set(spans)):
        here = [hit for span, hit in zip(spans, hits, strict=True) if span == n]
        events = sum(here)
        if events == at_risk:
            surviving = 0.0  # Greenwood's sum is infinite: the effective number stays
        elif events:
            surviving *= 1 - events / at_risk
            greenwood += events / (at_risk * (at_risk - events))
            effective = (1 - surviving) / (surviving * greenwood)
        at_risk -= len(here)
        if events == 0 and surviving == 1 and at_risk:
            effective = float(at_risk)  # no hit yet: only starts that are still watched count
        if events or surviving == 1:
            band = wilson((1 - surviving) * effective, effective, confidence)
            steps.append((float(n), 1 - surviving, band.low, band.high))
    calls_, fraction, low, high = zip(*(step for step in steps if math.isfinite(step[0])), strict=True)
    return SuccessCurve(
        calls_, fraction, low, high, end=max(filter(math.isfinite, map(float, spans)), default=0.0)
    )


def _spans(
    first_hits: Sequence[float | None], calls: Sequence[float], where: str
) -> tuple[list[float], list[bool]]:
    """Return for each start the calls until its hit or its end, and whether it hit."""
    if len(first_hits) != len(calls) or len(calls) == 0:
        raise InputError(
            f"`{where}`: needs one `first_hits` and one `calls` for each start and at least one start, "
            f"got {len(first_hits)} and {len(calls)}"
        )
    spans = [end if hit is None else hit for hit, end in zip(first_hits, calls, strict=True)]
    for index, span in enumerate(spans):
        if not span >= 0:
            raise InputError(f"`{where}`: start {index} has {span!r} calls; they must not be negative")
    return spans, [hit is not None for hit in first_hits]


def _checked(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise InputError(f"`confidence` must be between 0 and 1, got {confidence!r}")
    return confidence

"""Statistics of searches: closed forms, special cases, and how often the intervals hold the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from mlopt.core.errors import InputError
from mlopt.core.reporting.statistics import kaplan_meier, mean_calls_to_hit, wilson


def test_mean_is_all_calls_before_hits_over_hits() -> None:
    """Calls after a hit do not count, calls of starts without a hit do."""
    assert mean_calls_to_hit([100, 300, None], [1000, 1000, 800]).mean == 600.0


@pytest.mark.parametrize(("hits", "starts"), [(1, 1), (4, 4), (1, 5), (7, 20)])
def test_interval_agrees_with_chi_square(hits: int, starts: int) -> None:
    """Bounds are 2 T / chi2; two degrees of freedom more below where some starts ran out of budget."""
    first = [100 * (i + 1) if i < hits else None for i in range(starts)]
    total = sum(100 * (i + 1) for i in range(hits)) + 5000 * (starts - hits)
    estimate = mean_calls_to_hit(first, [5000] * starts)
    degrees = 2 * hits if hits == starts else 2 * hits + 2
    assert estimate.low == pytest.approx(2 * total / stats.chi2.ppf(0.975, degrees), rel=1e-9)
    assert estimate.high == pytest.approx(2 * total / stats.chi2.ppf(0.025, 2 * hits), rel=1e-9)
    assert estimate.low < estimate.mean < estimate.high


def test_without_hits_only_a_lower_bound() -> None:
    """The rule of three: no hit in T calls says, at 95 %, that the mean is above T / 3."""
    estimate = mean_calls_to_hit([None] * 4, [1000] * 4)
    assert math.isinf(estimate.mean) and math.isinf(estimate.high)
    assert estimate.low == pytest.approx(4000 / -math.log(0.05), rel=1e-9)


def test_mean_interval_holds_the_truth_often_enough() -> None:
    """Exponential hits with a budget that stops about half of the starts."""
    generator = np.random.default_rng(1)
    held = 0
    for _ in range(1000):
        times = generator.exponential(1000.0, 20)
        first = [float(t) if t < 700 else None for t in times]
        estimate = mean_calls_to_hit(first, [700.0] * 20)
        held += estimate.low <= 1000.0 <= estimate.high
    assert held >= 940


def test_wilson_agrees_with_scipy() -> None:
    """An independent reference."""
    for k, n in [(0, 5), (1, 7), (9, 64), (150, 150)]:
        ours, reference = wilson(k, n), stats.binomtest(k, n).proportion_ci(method="wilson")
        assert (ours.low, ours.high) == pytest.approx((reference.low, reference.high), abs=1e-9)
    assert wilson(0, 3).low == 0.0 and wilson(3, 3).high == 1.0


def test_success_curve_without_censoring_is_a_count() -> None:
    """With one budget for all: fraction hit, with Wilson's interval at every step."""
    first: list[float | None] = [30, 10, 20, 20, None]
    curve = kaplan_meier(first, [100] * 5)
    assert curve.calls == (0, 10, 20, 30)
    assert curve.fraction == pytest.approx((0, 0.2, 0.6, 0.8))
    for k, low, high in zip((0, 1, 3, 4), curve.low, curve.high, strict=True):
        assert (low, high) == pytest.approx((wilson(k, 5).low, wilson(k, 5).high))
    assert curve.end == 100
    assert curve.quantile(0.6) == 20 and curve.quantile(0.9) is None


def test_success_curve_agrees_with_scipy_under_censoring() -> None:
    """An independent product-limit estimate, with ties between hits and ends of budget."""
    generator = np.random.default_rng(2)
    times = np.ceil(generator.exponential(50.0, 40))
    ends = np.ceil(generator.uniform(10, 120, 40))
    first = [float(t) if t <= c else None for t, c in zip(times, ends, strict=True)]
    curve = kaplan_meier(first, ends.tolist())
    observed = [t for t in first if t is not None]
    open_ended = [float(c) for t, c in zip(first, ends, strict=True) if t is None]
    reference = stats.ecdf(stats.CensoredData(uncensored=observed, right=open_ended)).cdf
    assert curve.fraction[1:] == pytest.approx(reference.evaluate(np.array(curve.calls[1:])))


def test_success_band_holds_the_truth_often_enough() -> None:
    """Pointwise, at one number of calls, with censoring at random."""
    generator = np.random.default_rng(3)
    truth, held = 1 - math.exp(-1), 0
    for _ in range(600):
        times, ends = generator.exponential(100.0, 30), generator.uniform(50, 250, 30)
        first = [float(t) if t <= c else None for t, c in zip(times, ends, strict=True)]
        curve = kaplan_meier(first, ends.tolist())
        step = int(np.searchsorted(curve.calls, 100.0, side="right")) - 1
        held += curve.low[step] <= truth <= curve.high[step]
    assert 0.92 <= held / 600 <= 0.99


def test_success_curve_at_its_ends() -> None:
    """No hits, and nothing but hits: the band has a width in both cases."""
    none = kaplan_meier([None] * 10, [100] * 10)
    assert none.fraction[-1] == 0 and none.low[-1] == 0 and none.high[-1] == pytest.approx(wilson(0, 10).high)
    every = kaplan_meier([1, 2, 3], [9, 9, 9])
    assert every.fraction[-1] == 1 and every.high[-1] == 1 and 0.2 < every.low[-1] < 0.8


def test_starts_that_cannot_go_on_stay_in_the_denominator() -> None:
    """A descent that converged elsewhere at 5 calls is a failure, not a start cut short."""
    assert kaplan_meier([None, 10], [5, 100]).fraction[-1] == 1
    assert kaplan_meier([None, 10], [math.inf, 100]).fraction[-1] == 0.5
    assert kaplan_meier([None], [math.inf]).end == 0


def test_messages_say_what_is_wrong() -> None:
    """Errors name the argument."""
    with pytest.raises(InputError, match="one `first_hits` and one `calls` for each start"):
        mean_calls_to_hit([1], [1, 2])
    with pytest.raises(InputError, match="at least one start"):
        kaplan_meier([], [])
    with pytest.raises(InputError, match="start 0 has nan calls"):
        kaplan_meier([None], [math.nan])
    with pytest.raises(InputError, match="must be finite"):
        mean_calls_to_hit([None], [math.inf])
    with pytest.raises(InputError, match="0 <= successes <= trials"):
        wilson(3, 2)
    with pytest.raises(InputError, match="`confidence` must be between 0 and 1"):
        wilson(1, 2, confidence=95)
    with pytest.raises(InputError, match="must be above 0"):
        kaplan_meier([1], [1]).quantile(0)

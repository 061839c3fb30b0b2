"""A metric: which value is better, and how it is shown."""

from __future__ import annotations

import math

import pytest

from toolkit.metrics.metric import LOSS, Metric


@pytest.mark.parametrize("metric, better, worse", [(LOSS, 0.5, 0.6), (Metric("accuracy", "larger"), 0.6, 0.5)])
def test_a_better_value_improves(metric: Metric, better: float, worse: float) -> None:
    assert metric.improves(better, worse) and not metric.improves(worse, better)
    assert not metric.improves(better, better)
    assert metric.improves(worse, None)


@pytest.mark.parametrize("metric", [LOSS, Metric("accuracy", "larger")])
def test_any_number_improves_on_what_is_none(metric: Metric) -> None:
    assert metric.improves(1.0, math.nan)
    assert not metric.improves(math.nan, 1.0) and not metric.improves(math.nan, math.nan)


def test_rates_are_percentages_and_other_figures_have_decimals() -> None:
    assert LOSS.format(1.23456) == "1.235"
    assert Metric("wer").format(0.1236) == "12.36 %"

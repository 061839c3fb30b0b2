"""The learning-rate schedules."""

from __future__ import annotations

import math

import pytest

from toolkit.config.spec import problems
from toolkit.schedules.constant.spec import Constant
from toolkit.schedules.cosine.spec import Cosine
from toolkit.schedules.inverse_square_root.spec import InverseSquareRoot

TOTAL = 100


def factors(schedule, total: int = TOTAL) -> list[float]:
    return [schedule.factor(step, total) for step in range(total)]


def test_constant() -> None:
    assert factors(Constant()) == [1.0] * TOTAL
    assert factors(Constant(warmup_steps=4))[:6] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_inverse_square_root_follows_the_paper() -> None:
    warmup, dim = 16, 512
    for step in range(TOTAL):
        n = step + 1
        paper = dim**-0.5 * min(n**-0.5, n * warmup**-1.5)  # Vaswani et al. 2017, equation 3
        peak = dim**-0.5 * warmup**-0.5
        assert InverseSquareRoot(warmup).factor(step, TOTAL) == pytest.approx(paper / peak, rel=1e-12)
    assert max(factors(InverseSquareRoot(warmup))) == factors(InverseSquareRoot(warmup))[warmup - 1] == 1.0


def test_cosine_peaks_after_warmup_and_ends_at_final() -> None:
    schedule = Cosine(warmup_steps=10, final=0.1)
    found = factors(schedule)
    assert found[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert found[9] == 1.0
    assert found[-1] == pytest.approx(0.1)
    assert found[54] == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 2)))  # half-way from 10 to 100
    assert found[9:] == sorted(found[9:], reverse=True) and len(set(found[9:])) == len(found[9:])
    assert schedule.factor(TOTAL + 50, TOTAL) == pytest.approx(0.1)


@pytest.mark.parametrize("schedule", [Constant(50), InverseSquareRoot(50), Cosine(50)])
def test_a_run_shorter_than_its_warmup_only_rises(schedule) -> None:
    assert factors(schedule, 3) == pytest.approx([1 / 50, 2 / 50, 3 / 50])


@pytest.mark.parametrize("schedule", [Constant(7), InverseSquareRoot(7), Cosine(7, 0.2)])
def test_a_factor_depends_on_nothing_but_its_step(schedule) -> None:
    assert [schedule.factor(step, TOTAL) for step in reversed(range(TOTAL))] == factors(schedule)[::-1]
    assert all(0 < f <= 1 for f in factors(schedule))


def test_limits() -> None:
    assert [field for field, _ in problems(Cosine(warmup_steps=-1, final=1.5))] == ["warmup_steps", "final"]
    assert [field for field, _ in problems(InverseSquareRoot(0))] == ["warmup_steps"]

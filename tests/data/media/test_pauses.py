"""Where long recordings are split."""

from __future__ import annotations

import numpy as np
import pytest

from toolkit.data.media import pauses

RATE = 1000
RNG = np.random.default_rng(0)


def test_pieces_end_in_pauses() -> None:
    samples = RNG.standard_normal(10 * RATE).astype(np.float32)
    quiet = [(1500, 2000), (3400, 3900), (7000, 7500)]
    for start, end in quiet:
        samples[start:end] = 0
    ends = pauses.ends(samples, 3 * RATE, RATE)
    assert ends[-1] == len(samples) and np.diff([0, *ends]).max() <= 3 * RATE
    pauses_hit = [any(start <= cut <= end for cut in ends[:-1]) for start, end in quiet]
    assert pauses_hit == [True] * 3


@pytest.mark.parametrize("length, longest", [(1, 1), (7, 1), (999, 1000), (1001, 1000), (5000, 999), (5000, 10)])
def test_pieces_are_whole_and_short_enough(length: int, longest: int) -> None:
    ends = pauses.ends(np.zeros(length, np.float32), longest, RATE)
    sizes = np.diff([0, *ends])
    assert ends[-1] == length and sizes.min() >= max(1, longest // 4) * (length > longest) and sizes.max() <= longest

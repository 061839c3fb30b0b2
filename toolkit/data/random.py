"""Keyed random numbers for many examples at once: those of an example do not depend on the others."""

from __future__ import annotations

import zlib

import numpy as np


def uniform(seed: int, name: str, epoch: int, examples: np.ndarray, words: int) -> np.ndarray:
    """Draw random numbers strictly between 0 and 1 for many examples at once, in steps of ``2**-32``.

    The generator is Philox with the key (seed, name) and the counter (epoch, example), so an example has the same
    numbers in any batch. numpy's generators take one key and counter at a time, which costs 10 us per example.

    Args:
        examples: ``(batch,)`` integers.
        words: numbers for each example.

    Returns:
        ``(batch, words)`` float64; fewer words are the first of more.
    """
    blocks = -(-words // 4)
    counter = np.empty((4, len(examples), blocks), np.uint64)
    counter[0], counter[1] = np.arange(blocks), epoch
    indices = np.asarray(examples, np.uint64)[:, None]
    counter[2], counter[3] = indices & np.uint64(0xFFFFFFFF), indices >> np.uint64(32)
    key = (seed & 0xFFFFFFFF) ^ zlib.crc32(name.encode()), seed >> 32 & 0xFFFFFFFF
    numbers = philox(counter.reshape(4, -1), key).reshape(4, len(examples), blocks)
    return (numbers.transpose(1, 2, 0).reshape(len(examples), -1)[:, :words] + 0.5) / 2.0**32


def philox(counter: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """Compute Philox4x32-10 (Salmon et al. 2011, "Parallel Random Numbers: As Easy as 1, 2, 3").

    Args:
        counter: ``(4, n)`` uint64 that hold 32-bit words.
        key: two 32-bit words.

    Returns:
        ``(4, n)`` uint64 that hold 32-bit words.
    """
    multipliers = np.array([[0xD2511F53], [0xCD9E8D57]], np.uint64)
    low, bits = np.uint64(0xFFFFFFFF), np.uint64(32)
    even, odd = counter[0::2], counter[1::2]
    for step in range(10):
        words = [[key[0] + step * 0x9E3779B9 & 0xFFFFFFFF], [key[1] + step * 0xBB67AE85 & 0xFFFFFFFF]]
        product = (even * multipliers)[::-1]
        even, odd = (product >> bits) ^ odd ^ np.array(words, np.uint64), product & low
    return np.stack([even[0], odd[0], even[1], odd[1]])


def symmetric_beta(u: np.ndarray, v: np.ndarray, alpha: float) -> np.ndarray:
    """Transform two uniform numbers into one from Beta(alpha, alpha), without rejection.

    ``sqrt(q)`` with the sign of the cosine is a Student t variable of ``2 alpha`` degrees of freedom over
    ``sqrt(2 alpha)`` (Bailey 1994), and a monotone function of it is the Beta variable (Devroye 1996, "Random variate
    generation in one line of code").
    """
    cosine = np.cos(2 * np.pi * v)
    with np.errstate(over="ignore", divide="ignore"):  # infinity is correct: it gives 0 or 1
        inverse = 1 / (np.expm1(-np.log(u) / alpha) * cosine**2)
    return 0.5 + 0.5 * np.copysign(1 / np.sqrt(1 + inverse), cosine)

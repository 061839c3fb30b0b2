"""Dropout in PyTorch."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toolkit.layers import spec as shared


class Dropout(nn.Module):
    """Dropout whose mask is a hash of (seed, path, step, element): the same bits on both backends and after a resume.

    Call ``toolkit.layers.torch.bind`` once, and ``set_step`` before every training step.

    Args:
        rate: probability of dropping an element; the others are scaled by ``1 / (1 - rate)``.
        native: draw from PyTorch's generator, seeded at every step. About twice as fast, but the masks differ from
            those of the other backend.
    """

    def __init__(self, rate: float, native: bool = False) -> None:
        super().__init__()
        self.rate = rate
        self.native = native
        self.base: int | None = None
        self.step = 0
        self.before = 0  # rows of the whole batch before those of this device

    def forward(self, x: Tensor) -> Tensor:
        """Drop elements of ``x``, whose last axis is the channels."""
        if not self.training or not self.rate:
            return x
        if self.native:
            return F.dropout(x, self.rate)
        if self.base is None:
            raise RuntimeError("dropout has no key: call toolkit.layers.torch.bind(model, seed) first")
        key, first = shared.dropout_key(self.base, self.step), self.before * x[0].numel() if self.before else 0
        keep = _keep(x.numel(), key, self.rate, x.device, first)
        return x * keep.view(x.shape).to(x.dtype).mul_(1.0 / (1.0 - self.rate))


def _keep(elements: int, key: int, rate: float, device: torch.device, first: int = 0) -> Tensor:
    """Compute :func:`toolkit.layers.spec.dropout_mask` in int32, the two's complement of the words."""
    count = (first + elements + 1) // 2
    capacity = 1 << max(count - 1, 0).bit_length()
    words = _hash32(_hashed_indices(capacity, device)[first // 2 : count] ^ _signed(key))
    # signed comparison orders like the unsigned one once the top bit of each half is flipped
    halves = words.bitwise_xor_(_signed(0x80008000)).view(torch.int16)[first % 2 : first % 2 + elements]
    return halves >= shared.dropout_threshold(rate) - 2**15


@functools.lru_cache(maxsize=4)
def _hashed_indices(capacity: int, device: torch.device) -> Tensor:
    """Hash 0, 1, ...: the half of the work that does not depend on the step."""
    return _hash32(torch.arange(capacity, dtype=torch.int32, device=device))


def _hash32(x: Tensor) -> Tensor:
    """Compute :func:`toolkit.layers.spec.hash32` in place; masks turn int32's arithmetic shift into a logical one."""
    x.bitwise_xor_((x >> 16).bitwise_and_(0xFFFF)).mul_(0x7FEB352D)
    x.bitwise_xor_((x >> 15).bitwise_and_(0x1FFFF)).mul_(_signed(0x846CA68B))
    return x.bitwise_xor_((x >> 16).bitwise_and_(0xFFFF))


def _signed(word: int) -> int:
    return word - 2**32 if word >= 2**31 else word

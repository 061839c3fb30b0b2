"""Double arrays, in PyTorch."""

import torch


def compute(given):
    return {name: torch.from_numpy(array).requires_grad_(array.dtype.kind == "f") * 2 for name, array in given.items()}

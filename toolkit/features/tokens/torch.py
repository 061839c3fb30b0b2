"""Token ids in PyTorch."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from toolkit.features.tokens import spec as tokens


class Tokens(nn.Module):
    """See :class:`toolkit.features.tokens.spec.Tokens`.

    Args:
        spec: the neutral description.
        state: empty.
    """

    def __init__(self, spec: tokens.Tokens, state: dict[str, np.ndarray]) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, source: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Hand on ``(batch, source)`` ids and ``(batch,)`` lengths, as int64, by which PyTorch looks things up."""
        return source.long(), lengths.long()

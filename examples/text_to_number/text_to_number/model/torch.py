"""The mean of embeddings in PyTorch."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from text_to_number.model import spec as bag
from toolkit.layers.basic.torch import Head, valid_frames


class Bag(nn.Module):
    """See :class:`text_to_number.model.spec.Bag`."""

    def __init__(self, spec: bag.Bag, inputs: int, outputs: int) -> None:
        super().__init__()
        self.spec = spec
        self.embedding = nn.Embedding(inputs, spec.dim)
        self.linear = nn.Linear(spec.dim, spec.hidden)
        self.head = Head(spec.hidden, outputs)

    def forward(self, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Map ``(batch, time)`` tokens to ``(batch,)`` numbers and the intermediates."""
        vectors = self.embedding(tokens)
        valid = valid_frames(lengths, tokens.shape[1])[..., None].to(vectors.dtype)
        mean = (vectors * valid).sum(1) / lengths[:, None].to(vectors.dtype)
        number = self.head(functional.relu(self.linear(mean)))[:, 0]
        return number, {"mean": mean, "number": number}

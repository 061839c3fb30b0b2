"""The mean of embeddings under a hidden layer."""

from __future__ import annotations

from typing import ClassVar

from toolkit.config.spec import option, spec
from toolkit.layers import spec as layers
from toolkit.layers.spec import Parameters, under
from toolkit.models.spec import Model


@spec
class Bag(Model):
    """The mean of the token embeddings, a hidden layer with ReLU, and a linear layer (Iyyer et al. 2015)."""

    input: ClassVar[str] = "text"
    output: ClassVar[str] = "number"

    dim: int = option(32, "width of an embedding", ge=1)
    hidden: int = option(64, "width of the hidden layer", ge=1)

    def parameters(self, inputs: int, outputs: int) -> Parameters:
        return (
            under("embedding", layers.embedding(inputs, self.dim))
            | under("linear", layers.dense(self.dim, self.hidden))
            | under("head", layers.dense(self.hidden, outputs))
        )

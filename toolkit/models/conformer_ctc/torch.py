"""Conformer encoder with a CTC head, in PyTorch."""

from __future__ import annotations

from torch import Tensor, nn

from toolkit.encoders.conformer.torch import Conformer
from toolkit.layers.basic.torch import Head
from toolkit.layers.torch import adopt
from toolkit.models.conformer_ctc import spec as neutral


class ConformerCTC(nn.Module):
    """See :class:`toolkit.models.conformer_ctc.spec.ConformerCTC`.

    Args:
        spec: the neutral description.
        inputs: size of a frame of features.
        outputs: size of the vocabulary with the blank.
    """

    def __init__(self, spec: neutral.ConformerCTC, inputs: int, outputs: int) -> None:
        super().__init__()
        self.encode = adopt(self, Conformer(spec, inputs))
        self.head = Head(spec.width, outputs)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Compute the logits of a batch.

        Args:
            features: ``(batch, frames, inputs)``.
            lengths: ``(batch,)`` frames.

        Returns:
            ``(batch, time, outputs)`` logits, ``(batch,)`` their lengths, and the intermediates by name, in order.
        """
        x, lengths, intermediates = self.encode(features, lengths)
        logits = self.head(x)
        return logits, lengths, intermediates | {"logits": logits}

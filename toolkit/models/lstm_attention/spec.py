"""LSTM encoder and decoder with attention."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from toolkit.config.spec import option, spec
from toolkit.layers import spec as layers
from toolkit.layers.spec import Parameters, under
from toolkit.models.spec import Model


@spec
class LSTMAttention(Model):
    """Global attention over the source, after Luong et al. 2015, "Effective Approaches to Attention-based NMT".

    Each encoder layer is one LSTM forwards and one backwards from the true end of each source, each of half the width,
    concatenated. The last state of the forward LSTM and the first of the backward LSTM, through a linear layer and
    tanh, are the initial states of the decoder layers (as Bahdanau et al. 2015, appendix A.2.2, do with the backward
    one); their cells start at zero. With the decoder state h and the encoder outputs m, as in section 3.1 and equations
    5 to 8 of Luong et al.:

        score(h, m) = h . W_a m  (general)  or  h . m  (dot)
        c = sum over the source of softmax(score) m
        a = tanh(W_c [c; h])
        logits = W_s a + b

    With input feeding (section 3.3) a is also part of the decoder's next input. The decoder then attends step by step;
    without it, LSTM and attention each run over all steps at once.

    The paper's encoder is unidirectional and passes its states on unchanged. The model always computes in the precision
    of its weights.

    Initialization: embeddings normal with variance ``1 / embedding_dim``, matrices Glorot uniform, recurrent weights
    uniform with variance ``1 / units``, forget gate biases one, other biases zero.
    """

    input: ClassVar[str] = "text"
    output: ClassVar[str] = "tokens"

    embedding_dim: int = option(256, "width of the source and target embeddings", ge=1)
    units: int = option(512, "width of the decoder, and of both encoder directions together; even", ge=2)
    layers: int = option(1, "number of LSTM layers in the encoder and in the decoder", ge=1)
    score: Literal["general", "dot"] = option("general", "score of a decoder state and an encoder output")
    input_feeding: bool = option(
        False, "feed the attention of the previous step to the decoder: a step takes a third longer"
    )
    dropout: float = option(0.2, "dropout rate before each LSTM layer and before the logits", ge=0, lt=1)
    native_dropout: bool = option(False, "use the framework's dropout: faster, but masks differ between backends")

    def check(self) -> Iterator[tuple[str, str]]:
        if self.units % 2:
            yield (
                "units",
                f"found {self.units}, expected an even number; each encoder direction has half of it",
            )

    def encoder_inputs(self, number: int) -> int:
        """Return the input width of an encoder layer."""
        return self.units if number else self.embedding_dim

    def decoder_inputs(self, number: int) -> int:
        """Return the input width of a decoder layer."""
        return self.units if number else self.embedding_dim + self.units * self.input_feeding

    def parameters(self, inputs: int, outputs: int) -> Parameters:
        """List the parameters of both twins by canonical name.

        Args:
            inputs: size of the source vocabulary.
            outputs: size of the target vocabulary.
        """
        parameters = under("source_embedding", layers.embedding(inputs, self.embedding_dim))
        parameters |= under("target_embedding", layers.embedding(outputs, self.embedding_dim))
        for number in range(self.layers):
            direction = layers.lstm(self.encoder_inputs(number), self.units // 2)
            parameters |= under(f"encoder.{number}", under("forwards", direction), under("backwards", direction))
            parameters |= under(f"bridge.{number}", layers.dense(self.units, self.units))
            parameters |= under(f"decoder.{number}", layers.lstm(self.decoder_inputs(number), self.units))
        if self.score == "general":
            parameters |= under("keys", layers.dense(self.units, self.units, bias=False))
        parameters |= under("combine", layers.dense(2 * self.units, self.units, bias=False))
        return parameters | under("head", layers.dense(self.units, outputs))

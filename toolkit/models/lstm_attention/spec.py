"""LSTM encoder and decoder with attention."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from toolkit.config.spec import option, spec
from toolkit.layers import spec as layers
from toolkit.layers.spec import Parameters, under

if TYPE_CHECKING:
    from toolkit.config.schema import Run


@spec
class LSTMAttention:
    """Global attention over the source, after Luong et al. 2015, "Effective Approaches to Attention-based NMT".

    Each layer of the encoder is an LSTM forwards and one backwards, of half the width each, side by side; the backward
    one begins at the true end of each source. The last state of the forward one and the first of the backward one,
    through a linear layer and tanh, start the layers of the decoder (as Bahdanau et al. 2015, appendix A.2.2, do with
    the backward one); their cells start empty. With h the decoder's state and m the encoder's outputs, as in section
    3.1 and equations 5 to 8 of Luong et al.:

        score(h, m) = h . W_a m  (general)  or  h . m  (dot)
        c = sum over the source of softmax(score) m
        a = tanh(W_c [c; h])
        logits = W_s a + b

    With input feeding (section 3.3) a is also part of the decoder's next input. Then the decoder must attend step by
    step, where otherwise its LSTM and then its attention go over all steps at once.

    The paper's encoder looks in one direction, and hands its states on as they are. The model always computes in the
    precision of its weights.

    Starts: embeddings normal with variance ``1 / embedding_dim``, matrices Glorot uniform, recurrent weights uniform
    with variance ``1 / units``, biases zero but for one at the forget gates.
    """

    domains: ClassVar[tuple[str, ...]] = ("translation",)

    embedding_dim: int = option(256, "width of the embeddings of both sides", ge=1)
    units: int = option(512, "width of the decoder, and of both directions of the encoder together; even", ge=2)
    layers: int = option(1, "LSTM layers of the encoder, and of the decoder", ge=1)
    score: Literal["general", "dot"] = option("general", "how a state of the decoder is held against the source")
    input_feeding: bool = option(
        False, "the decoder sees what it attended to the step before: a step takes a third longer"
    )
    dropout: float = option(
        0.2, "probability of dropping a value before each LSTM layer and before the logits", ge=0, lt=1
    )
    native_dropout: bool = option(False, "the framework's own dropout: faster, but other masks on each backend")

    def check(self) -> Iterator[tuple[str, str]]:
        """Conditions between fields."""
        if self.units % 2:
            yield (
                "units",
                f"found {self.units}, expected an even number: each direction of the encoder has half of them",
            )

    def check_run(self, run: Run) -> Iterator[tuple[str, str]]:
        """Conditions between this model and other components."""
        yield from layers.check_native_dropout(self.native_dropout, run)

    def encoder_inputs(self, number: int) -> int:
        """Width of what a layer of the encoder sees."""
        return self.units if number else self.embedding_dim

    def decoder_inputs(self, number: int) -> int:
        """Width of what a layer of the decoder sees."""
        return self.units if number else self.embedding_dim + self.units * self.input_feeding

    def parameters(self, inputs: int, outputs: int) -> Parameters:
        """What both twins have, by canonical name.

        Args:
            inputs: size of the source's vocabulary.
            outputs: size of the translation's vocabulary.
        """
        made = under("source_embedding", layers.embedding(inputs, self.embedding_dim))
        made |= under("target_embedding", layers.embedding(outputs, self.embedding_dim))
        for number in range(self.layers):
            direction = layers.lstm(self.encoder_inputs(number), self.units // 2)
            made |= under(f"encoder.{number}", under("forwards", direction), under("backwards", direction))
            made |= under(f"bridge.{number}", layers.dense(self.units, self.units))
            made |= under(f"decoder.{number}", layers.lstm(self.decoder_inputs(number), self.units))
        if self.score == "general":
            made |= under("keys", layers.dense(self.units, self.units, bias=False))
        made |= under("combine", layers.dense(2 * self.units, self.units, bias=False))
        return made | under("head", layers.dense(self.units, outputs))

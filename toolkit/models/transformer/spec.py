"""Transformer, encoder and decoder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from toolkit.config.contracts import Bilingual
from toolkit.config.spec import option, spec
from toolkit.errors import ConfigError
from toolkit.layers import spec as layers
from toolkit.layers.spec import Parameters, under

if TYPE_CHECKING:
    from toolkit.config.schema import Run


@spec
class Transformer:
    """Vaswani et al. 2017, "Attention Is All You Need".

    The encoder's layers are self-attention and a feed-forward network, the decoder's causal self-attention, attention
    to what the encoder gives and a feed-forward network, each of these with a residual connection, dropout and a
    normalisation: after the sum (``norm=post``, the paper's) or in front of the sub-layer, and then once more at the
    end of the stack (``norm=pre``; Xiong et al. 2020, "On Layer Normalization in the Transformer Architecture"), which
    trains deep stacks without a warm-up. Embeddings are multiplied by ``sqrt(dim)``, and sinusoids of the position are
    added (section 3.5). The output matrix is by default the embedding of the translation (Press & Wolf 2017), and has
    no bias. Nor have the keys, whose bias would cancel in the softmax.

    Sizes: tiny (the defaults; Wu et al. 2021, "Good for Misconceived Reasons", for the 29 000 pairs of Multi30k),
    small, and the paper's base and big (table 3).

    Starts: matrices Glorot uniform, embeddings normal with variance ``1 / dim``, biases zero, normalisations one and
    zero.
    """

    domains: ClassVar[tuple[str, ...]] = ("translation",)

    dim: int = option(128, "width of a vector between sub-layers", ge=2)
    encoder_layers: int = option(4, "layers of the encoder", ge=1)
    decoder_layers: int = option(4, "layers of the decoder", ge=1)
    heads: int = option(4, "attention heads", ge=1)
    feed_forward: int = option(256, "inner width of the feed-forward networks", ge=1)
    activation: Literal["relu", "gelu"] = option("relu", "between the two matrices of a feed-forward network")
    norm: Literal["post", "pre"] = option("post", "where the normalisation stands: after the sum or before a sub-layer")
    tie_output: bool = option(True, "the output matrix is the embedding of the translation")
    share_embeddings: bool = option(
        False, "one embedding for source and translation (with tie_output the output matrix too); needs one vocabulary"
    )
    dropout: float = option(
        0.1, "probability of dropping a value of the embedded tokens and at the end of a sub-layer", ge=0, lt=1
    )
    attention_dropout: float = option(0.0, "probability of dropping an attention weight", ge=0, lt=1)
    native_dropout: bool = option(False, "the framework's own dropout: faster, but other masks on each backend")
    max_positions: int = option(1024, "longest source, and longest translation with its end, in tokens", ge=1)

    def check(self) -> Iterator[tuple[str, str]]:
        if self.dim % 2:
            yield "dim", f"found {self.dim}, expected an even number"
        if self.dim % self.heads:
            yield "dim", f"found {self.dim}, expected a multiple of heads ({self.heads})"

    def check_run(self, run: Run) -> Iterator[tuple[str, str]]:
        """Conditions between this model and other components."""
        yield from layers.check_native_dropout(self.native_dropout, run)
        if self.share_embeddings and isinstance(run.tokenizer, Bilingual) and not run.tokenizer.joint:
            yield (
                "share_embeddings",
                "true is not supported with tokenizer.joint=false; set tokenizer.joint=true or "
                "model.share_embeddings=false",
            )

    def parameters(self, inputs: int, outputs: int) -> Parameters:
        """What both twins have, by canonical name.

        Args:
            inputs: size of the source's vocabulary.
            outputs: size of the translation's vocabulary.

        Raises:
            ConfigError: ``share_embeddings`` with vocabularies of different sizes.
        """
        if self.share_embeddings and inputs != outputs:
            raise ConfigError(
                f"model.share_embeddings: found {inputs} tokens in the source's vocabulary and {outputs} in the "
                "translation's, expected one vocabulary for both; let the tokenizer learn one, or set "
                "model.share_embeddings=false"
            )
        if self.share_embeddings:
            made = under("embedding", layers.embedding(inputs, self.dim))
        else:
            made = under("source_embedding", layers.embedding(inputs, self.dim))
            made |= under("target_embedding", layers.embedding(outputs, self.dim))
        for stack, count, residuals in (("encoder", self.encoder_layers, 2), ("decoder", self.decoder_layers, 3)):
            for number in range(count):
                made |= under(f"{stack}.{number}", self._layer(residuals))
            if self.norm == "pre":
                made |= under(f"{stack}_norm", layers.layer_norm(self.dim))
        return made if self.tie_output else made | under("head", layers.dense(self.dim, outputs, bias=False))

    def _layer(self, residuals: int) -> Parameters:
        attention = layers.attention(self.dim)
        made = under("self_attention", attention) | (under("cross_attention", attention) if residuals == 3 else {})
        made |= under("feed_forward.linear1", layers.dense(self.dim, self.feed_forward))
        made |= under("feed_forward.linear2", layers.dense(self.feed_forward, self.dim))
        for number in range(1, residuals + 1):
            made |= under(f"residual{number}.norm", layers.layer_norm(self.dim))
        return made

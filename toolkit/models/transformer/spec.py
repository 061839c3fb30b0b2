"""Transformer, encoder and decoder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from toolkit.config.spec import option, spec
from toolkit.errors import ConfigError
from toolkit.layers import spec as layers
from toolkit.layers.spec import Parameters, under
from toolkit.models.spec import Model

if TYPE_CHECKING:
    from toolkit.config.schema import Run


@spec
class Transformer(Model):
    """Vaswani et al. 2017, "Attention Is All You Need".

    An encoder layer has self-attention and a feed-forward network. A decoder layer has causal self-attention, attention
    to the encoder's output and a feed-forward network. Each of these has a residual connection, dropout and a
    normalization: after the sum (``norm=post``, as in the paper), or before the sub-layer and once more at the end of
    the stack (``norm=pre``; Xiong et al. 2020, "On Layer Normalization in the Transformer Architecture"), which trains
    deep stacks without warmup. Embeddings are multiplied by ``sqrt(dim)``, and sinusoids of the position are added
    (section 3.5). By default the output matrix is the target embedding (Press & Wolf 2017). The output layer and the
    keys have no bias; a bias of the keys would cancel in the softmax.

    Sizes: tiny (the defaults; Wu et al. 2021, "Good for Misconceived Reasons", for the 29 000 pairs of Multi30k),
    small, and the paper's base and big (table 3).

    Initialization: matrices Glorot uniform, embeddings normal with variance ``1 / dim``, biases zero, normalizations
    one and zero.
    """

    input: ClassVar[str] = "text"
    output: ClassVar[str] = "tokens"

    dim: int = option(128, "width of the vectors between sub-layers", ge=2)
    encoder_layers: int = option(4, "number of encoder layers", ge=1)
    decoder_layers: int = option(4, "number of decoder layers", ge=1)
    heads: int = option(4, "attention heads", ge=1)
    feed_forward: int = option(256, "inner width of the feed-forward networks", ge=1)
    activation: Literal["relu", "gelu"] = option("relu", "activation of the feed-forward networks")
    norm: Literal["post", "pre"] = option("post", "normalization after the sum (post) or before the sub-layer (pre)")
    tie_output: bool = option(True, "use the target embedding as output matrix")
    share_embeddings: bool = option(
        False,
        "use one embedding for source and target; requires one vocabulary",
    )
    dropout: float = option(0.1, "dropout rate of embedded tokens and at the end of each sub-layer", ge=0, lt=1)
    attention_dropout: float = option(0.0, "dropout rate of attention weights", ge=0, lt=1)
    native_dropout: bool = option(False, "use the framework's dropout: faster, but masks differ between backends")
    max_positions: int = option(1024, "longest source, and longest target with its end, in tokens", ge=1)

    @property
    def longest(self) -> int | None:
        return self.max_positions

    def check(self) -> Iterator[tuple[str, str]]:
        if self.dim % 2:
            yield "dim", f"found {self.dim}, expected an even number"
        if self.dim % self.heads:
            yield "dim", f"found {self.dim}, expected a multiple of heads ({self.heads})"

    def check_run(self, run: Run) -> Iterator[tuple[str, str]]:
        """Yield the conflicts of this model with other components."""
        yield from super().check_run(run)
        if self.share_embeddings and run.tokenizer is not None and not run.tokenizer.joint:
            yield (
                "share_embeddings",
                "true is not supported with tokenizer.joint=false; set tokenizer.joint=true or "
                "model.share_embeddings=false",
            )

    def parameters(self, inputs: int, outputs: int) -> Parameters:
        """List the parameters of both twins by canonical name.

        Args:
            inputs: size of the source vocabulary.
            outputs: size of the target vocabulary.

        Raises:
            ConfigError: ``share_embeddings`` with vocabularies of different sizes.
        """
        if self.share_embeddings and inputs != outputs:
            raise ConfigError(
                f"model.share_embeddings: found {inputs} tokens in the source vocabulary and {outputs} in the target "
                "vocabulary, expected one vocabulary for both; let the tokenizer learn one, or set "
                "model.share_embeddings=false"
            )
        if self.share_embeddings:
            parameters = under("embedding", layers.embedding(inputs, self.dim))
        else:
            parameters = under("source_embedding", layers.embedding(inputs, self.dim))
            parameters |= under("target_embedding", layers.embedding(outputs, self.dim))
        for stack, count, residuals in (("encoder", self.encoder_layers, 2), ("decoder", self.decoder_layers, 3)):
            for number in range(count):
                parameters |= under(f"{stack}.{number}", self._layer(residuals))
            if self.norm == "pre":
                parameters |= under(f"{stack}_norm", layers.layer_norm(self.dim))
        if not self.tie_output:
            parameters |= under("head", layers.dense(self.dim, outputs, bias=False))
        return parameters

    def _layer(self, residuals: int) -> Parameters:
        attention = layers.attention(self.dim)
        parameters = under("self_attention", attention)
        if residuals == 3:
            parameters |= under("cross_attention", attention)
        parameters |= under("feed_forward.linear1", layers.dense(self.dim, self.feed_forward))
        parameters |= under("feed_forward.linear2", layers.dense(self.feed_forward, self.dim))
        for number in range(1, residuals + 1):
            parameters |= under(f"residual{number}.norm", layers.layer_norm(self.dim))
        return parameters

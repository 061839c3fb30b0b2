"""Transformer in PyTorch."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toolkit.layers import spec as shared
from toolkit.layers.attention import torch as attention
from toolkit.layers.attention.torch import KeyValue
from toolkit.layers.basic.torch import valid_frames
from toolkit.layers.dropout.torch import Dropout
from toolkit.layers.torch import ForwardMethods
from toolkit.models.transformer import spec as transformer


class Attention(attention.Attention):
    """Multi-head attention whose weights are dropped (section 3.2 of the paper)."""

    def __init__(self, spec: transformer.Transformer) -> None:
        super().__init__(spec.dim, spec.heads)
        self.dropout = Dropout(spec.attention_dropout, spec.native_dropout)

    def forward(self, x: Tensor, keys: KeyValue, masking: Tensor | None) -> Tensor:
        """Attend from ``x`` to ``keys``, see :meth:`attend`."""
        return self.attend(x, keys, masking, self.dropout)


class FeedForward(nn.Module):
    """Expansion, activation, projection (section 3.3 of the paper)."""

    def __init__(self, spec: transformer.Transformer) -> None:
        super().__init__()
        self.activation = F.relu if spec.activation == "relu" else F.gelu
        self.linear1 = nn.Linear(spec.dim, spec.feed_forward)
        self.linear2 = nn.Linear(spec.feed_forward, spec.dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, time, dim)`` to the same shape."""
        return self.linear2(self.activation(self.linear1(x)))


class Residual(nn.Module):
    """The residual connection of a sub-layer: normalization before it or after the sum, dropout, the sum."""

    def __init__(self, spec: transformer.Transformer) -> None:
        super().__init__()
        self.pre = spec.norm == "pre"
        self.norm = nn.LayerNorm(spec.dim, eps=shared.NORM_EPSILON)
        self.dropout = Dropout(spec.dropout, spec.native_dropout)

    def before(self, x: Tensor) -> Tensor:
        """Return the input of the sub-layer."""
        return self.norm(x) if self.pre else x

    def after(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the sum of ``x`` and the sub-layer's output ``y``."""
        x = x + self.dropout(y)
        return x if self.pre else self.norm(x)


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward network."""

    def __init__(self, spec: transformer.Transformer) -> None:
        super().__init__()
        self.self_attention = Attention(spec)
        self.residual1 = Residual(spec)
        self.feed_forward = FeedForward(spec)
        self.residual2 = Residual(spec)

    def forward(self, x: Tensor, masking: Tensor) -> dict[str, Tensor]:
        """Return the output of each sub-layer, in order; the last is that of the layer."""
        y = self.residual1.before(x)
        attention = self.residual1.after(x, self.self_attention(y, self.self_attention.keys(y), masking))
        y = self.residual2.before(attention)
        return {"self_attention": attention, "feed_forward": self.residual2.after(attention, self.feed_forward(y))}


class DecoderLayer(ForwardMethods):
    """Causal self-attention, attention to the source, a feed-forward network."""

    forward_methods = ("keys",)

    def __init__(self, spec: transformer.Transformer) -> None:
        super().__init__()
        self.self_attention = Attention(spec)
        self.residual1 = Residual(spec)
        self.cross_attention = Attention(spec)
        self.residual2 = Residual(spec)
        self.feed_forward = FeedForward(spec)
        self.residual3 = Residual(spec)

    def keys(self, memory: Tensor) -> KeyValue:
        """Compute keys and values of the source ``(batch, source, dim)``."""
        return self.cross_attention.keys(memory)

    def forward(
        self, x: Tensor, source: KeyValue, masking: Tensor, causal: Tensor | None, past: KeyValue | None = None
    ) -> tuple[dict[str, Tensor], KeyValue]:
        """Run one layer.

        Args:
            x: ``(rows, time, dim)``, one or several rows for each example of the source.
            source: keys and values of the source.
            masking: hides the padding of the source.
            causal: hides later positions.
            past: keys and values of the positions before ``x``.

        Returns:
            the output of each sub-layer, in order, of which the last is that of the layer; and the keys and values
            so far.
        """
        y = self.residual1.before(x)
        keys = self.self_attention.keys(y)
        if past is not None:
            keys = torch.cat([past[0], keys[0]], 2), torch.cat([past[1], keys[1]], 2)
        attention = self.residual1.after(x, self.self_attention(y, keys, causal))
        # the rows of an example are its queries
        y = self.residual2.before(attention).reshape(len(source[0]), -1, x.shape[-1])
        cross = self.residual2.after(attention, self.cross_attention(y, source, masking).view_as(x))
        y = self.residual3.before(cross)
        feed_forward = self.residual3.after(cross, self.feed_forward(y))
        return {"self_attention": attention, "cross_attention": cross, "feed_forward": feed_forward}, keys


class Transformer(ForwardMethods):
    """See :class:`toolkit.models.transformer.spec.Transformer`.

    Args:
        spec: the neutral description.
        inputs: size of the source vocabulary.
        outputs: size of the target vocabulary.
    """

    forward_methods = ("start", "step")

    table: Tensor

    def __init__(self, spec: transformer.Transformer, inputs: int, outputs: int) -> None:
        super().__init__()
        self.spec = spec
        if spec.share_embeddings:
            self.embedding = nn.Embedding(inputs, spec.dim)
        else:
            self.source_embedding = nn.Embedding(inputs, spec.dim)
            self.target_embedding = nn.Embedding(outputs, spec.dim)
        self.source_dropout = Dropout(spec.dropout, spec.native_dropout)
        self.target_dropout = Dropout(spec.dropout, spec.native_dropout)
        self.encoder = nn.ModuleList(EncoderLayer(spec) for _ in range(spec.encoder_layers))
        layers = nn.ModuleList(DecoderLayer(spec) for _ in range(spec.decoder_layers))
        self.decoder: Iterable[DecoderLayer] = layers  # type: ignore[assignment]
        if spec.norm == "pre":
            self.encoder_norm = nn.LayerNorm(spec.dim, eps=shared.NORM_EPSILON)
            self.decoder_norm = nn.LayerNorm(spec.dim, eps=shared.NORM_EPSILON)
        if not spec.tie_output:
            self.head = nn.Linear(spec.dim, outputs, bias=False)
        table = torch.from_numpy(shared.sinusoids(np.arange(spec.max_positions), spec.dim))
        self.register_buffer("table", table, persistent=False)

    def forward(self, source: Tensor, source_lengths: Tensor, previous: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the logits of every next token of a batch.

        Args:
            source: ``(batch, source)`` tokens.
            source_lengths: ``(batch,)``.
            previous: ``(batch, time)`` tokens: the boundary, then the target.

        Returns:
            ``(batch, time, outputs)`` logits, and the intermediates by name, in order.

        Raises:
            ValueError: source or target is longer than ``max_positions``.
        """
        memory, masking, intermediates = self._encode(source, source_lengths)
        x = self.target_dropout(self._embed(self._target, previous))
        intermediates["target"] = x
        later = torch.ones(x.shape[1], x.shape[1], dtype=x.dtype, device=x.device).triu(1) * shared.MASKED_SCORE
        for number, layer in enumerate(self.decoder):
            outputs, _ = layer(x, layer.keys(memory), masking, later)
            x = outputs["feed_forward"]
            intermediates |= {f"decoder.{number}.{name}": value for name, value in outputs.items()}
        logits = self._logits(x)
        return logits, intermediates | {"logits": logits}

    def start(self, source: Tensor, source_lengths: Tensor, width: int) -> dict[str, Tensor]:
        """Encode the source for a search.

        Args:
            source: ``(batch, source)`` tokens.
            source_lengths: ``(batch,)``.
            width: number of hypotheses per example.

        Returns:
            the state before the first step: for each layer the keys and values of the source, and those of the
            ``batch * width`` hypotheses, which have no position yet.
        """
        memory, masking, _ = self._encode(source, source_lengths)
        state = {"masking": masking}
        for number, layer in enumerate(self.decoder):
            key, value = layer.keys(memory)
            none = key.new_zeros(len(source) * width, key.shape[1], 0, key.shape[3])
            state |= {f"source.{number}.key": key, f"source.{number}.value": value}
            state |= {f"past.{number}.key": none, f"past.{number}.value": none}
        return state

    def step(self, state: dict[str, Tensor], tokens: Tensor, parents: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the logits after one more token.

        Args:
            state: result of :meth:`start` or of the previous step.
            tokens: ``(rows,)`` the last token of each row.
            parents: ``(rows,)`` the row of ``state`` that each row continues, of the same example.

        Returns:
            ``(rows, outputs)`` logits and the next state.

        Raises:
            ValueError: the target is longer than ``max_positions``.
        """
        state = dict(state)
        x = self._embed(self._target, tokens[:, None], state["past.0.key"].shape[2])
        for number, layer in enumerate(self.decoder):
            source = state[f"source.{number}.key"], state[f"source.{number}.value"]
            past = state[f"past.{number}.key"][parents], state[f"past.{number}.value"][parents]
            outputs, (key, value) = layer(x, source, state["masking"], None, past)
            x = outputs["feed_forward"]
            state |= {f"past.{number}.key": key, f"past.{number}.value": value}
        return self._logits(x)[:, 0], state

    @property
    def _source(self) -> nn.Embedding:
        return self.embedding if self.spec.share_embeddings else self.source_embedding

    @property
    def _target(self) -> nn.Embedding:
        return self.embedding if self.spec.share_embeddings else self.target_embedding

    def _encode(self, source: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        x = self.source_dropout(self._embed(self._source, source))
        intermediates = {"source": x}
        masking = (~valid_frames(lengths, x.shape[1])[:, None, None]).to(x.dtype) * shared.MASKED_SCORE
        for number, layer in enumerate(self.encoder):
            outputs = layer(x, masking)
            x = outputs["feed_forward"]
            intermediates |= {f"encoder.{number}.{name}": value for name, value in outputs.items()}
        memory = self.encoder_norm(x) if self.spec.norm == "pre" else x
        return memory, masking, intermediates | {"memory": memory}

    def _embed(self, embedding: nn.Embedding, tokens: Tensor, start: int = 0) -> Tensor:
        end, longest = start + tokens.shape[1], self.spec.max_positions
        if end > longest:
            raise ValueError(f"the input has {end} tokens, more than model.max_positions ({longest})")
        return embedding(tokens) * math.sqrt(self.spec.dim) + self.table[start:end]

    def _logits(self, x: Tensor) -> Tensor:
        x = self.decoder_norm(x) if self.spec.norm == "pre" else x
        weight = self._target.weight if self.spec.tie_output else self.head.weight
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(x.to(weight.dtype), weight)

"""LSTM encoder and decoder with attention, in PyTorch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from toolkit.layers.basic.torch import valid_frames
from toolkit.layers.dropout.torch import Dropout
from toolkit.layers.recurrent.torch import LSTM, reverse
from toolkit.layers.spec import MASKED_SCORE
from toolkit.layers.torch import ForwardMethods
from toolkit.models.lstm_attention import spec as neutral

State = dict[str, Tensor]


class EncoderLayer(nn.Module):
    """An LSTM in each direction, concatenated."""

    def __init__(self, spec: neutral.LSTMAttention, inputs: int) -> None:
        super().__init__()
        self.dropout = Dropout(spec.dropout, spec.native_dropout)
        self.forwards = LSTM(inputs, spec.units // 2)
        self.backwards = LSTM(inputs, spec.units // 2)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Map ``(batch, source, inputs)`` and ``(batch,)`` lengths to ``(batch, source, units)``."""
        x = self.dropout(x)
        backwards = reverse(self.backwards(reverse(x, lengths)), lengths)
        return torch.cat([self.forwards(x), backwards], -1)


class LSTMAttention(ForwardMethods):
    """See :class:`toolkit.models.lstm_attention.spec.LSTMAttention`.

    Args:
        spec: the neutral description.
        inputs: size of the source vocabulary.
        outputs: size of the target vocabulary.
    """

    forward_methods = ("start", "step")

    decoder: Any  # a ModuleList of LSTM; Any, because the type checker does not see step

    def __init__(self, spec: neutral.LSTMAttention, inputs: int, outputs: int) -> None:
        super().__init__()
        self.spec = spec
        numbers = range(spec.layers)
        self.source_embedding = nn.Embedding(inputs, spec.embedding_dim)
        self.target_embedding = nn.Embedding(outputs, spec.embedding_dim)
        self.encoder = nn.ModuleList(EncoderLayer(spec, spec.encoder_inputs(n)) for n in numbers)
        self.bridge = nn.ModuleList(nn.Linear(spec.units, spec.units) for _ in numbers)
        self.decoder = nn.ModuleList(LSTM(spec.decoder_inputs(n), spec.units) for n in numbers)
        self.dropouts = nn.ModuleList(Dropout(spec.dropout, spec.native_dropout) for _ in numbers)
        self.keys = nn.Linear(spec.units, spec.units, bias=False) if spec.score == "general" else nn.Identity()
        self.combine = nn.Linear(2 * spec.units, spec.units, bias=False)
        self.dropout = Dropout(spec.dropout, spec.native_dropout)
        self.head = nn.Linear(spec.units, outputs)

    def forward(self, source: Tensor, source_lengths: Tensor, previous: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the logits of a batch.

        Args:
            source: ``(batch, source)`` token ids.
            source_lengths: ``(batch,)``, at least 1.
            previous: ``(batch, time)`` tokens: the boundary, then the target.

        Returns:
            ``(batch, time, outputs)`` logits, and the intermediates by name, in order.
        """
        with torch.autocast(source.device.type, enabled=False):
            encoded, hidden, intermediates = self._encode(source, source_lengths)
            x = self.target_embedding(previous)
            intermediates |= {"hidden": hidden.transpose(0, 1), "target_embedding": x}
            if self.spec.input_feeding:
                x = self._attend_step_by_step(x, hidden, encoded)
            else:
                for number, (lstm, dropout) in enumerate(zip(self.decoder, self.dropouts, strict=True)):
                    x = lstm(dropout(x), hidden[number])
                    intermediates[f"decoder.{number}"] = x
                x = self._attend(x, encoded)
            intermediates["combine"] = x
            logits = self.head(self.dropout(x))
        return logits, intermediates | {"logits": logits}

    def start(self, source: Tensor, source_lengths: Tensor, width: int) -> State:
        """Encode the source for a search with ``width`` hypotheses per example.

        Returns:
            for each source ``keys`` and ``memory`` ``(batch, source, units)`` and ``valid`` ``(batch, source)``; for
            each row ``hidden`` and ``cell`` ``(layers, batch * width, units)`` and, with input feeding, ``attended``
            ``(batch * width, units)``.
        """
        with torch.autocast(source.device.type, enabled=False):
            encoded, hidden, _ = self._encode(source, source_lengths)
        hidden = hidden.repeat_interleave(width, 1)
        state = encoded | {"hidden": hidden, "cell": torch.zeros_like(hidden)}
        return state | ({"attended": torch.zeros_like(hidden[0])} if self.spec.input_feeding else {})

    def step(self, state: State, tokens: Tensor, parents: Tensor) -> tuple[Tensor, State]:
        """Compute the logits after one more token.

        Args:
            state: result of :meth:`start` or of the previous step.
            tokens: ``(rows,)`` the last token of each row.
            parents: ``(rows,)`` the row of ``state`` that each row continues, of the same example.

        Returns:
            ``(rows, outputs)`` logits and the next state.
        """
        with torch.autocast(tokens.device.type, enabled=False):
            x = self.target_embedding(tokens)
            if self.spec.input_feeding:
                x = torch.cat([x, state["attended"][parents]], -1)
            hidden, cell = self._advance(x, state["hidden"][:, parents], state["cell"][:, parents])
            state = state | {"hidden": hidden, "cell": cell}
            queries = hidden[-1].view(len(state["keys"]), -1, self.spec.units)
            attended = self._attend(queries, state).flatten(0, 1)
            if self.spec.input_feeding:
                state["attended"] = attended
            return self.head(attended), state

    def _encode(self, source: Tensor, lengths: Tensor) -> tuple[State, Tensor, dict[str, Tensor]]:
        """Return keys, memory and mask; the initial decoder states ``(layers, batch, units)``; the intermediates."""
        x, lengths = self.source_embedding(source), lengths.long()
        intermediates = {"source_embedding": x}
        for number, layer in enumerate(self.encoder):
            x = layer(x, lengths)
            intermediates[f"encoder.{number}"] = x
        half = self.spec.units // 2
        ends = torch.cat([x[torch.arange(len(x), device=x.device), lengths - 1, :half], x[:, 0, half:]], -1)
        hidden = torch.stack([torch.tanh(bridge(ends)) for bridge in self.bridge])
        encoded = {"keys": self.keys(x), "memory": x, "valid": valid_frames(lengths, x.shape[1])}
        return encoded, hidden, intermediates

    def _attend(self, queries: Tensor, encoded: State) -> Tensor:
        """Combine decoder states ``(batch, time, units)`` with their context vectors; same shape."""
        scores = queries @ encoded["keys"].transpose(1, 2)
        weights = scores.masked_fill(~encoded["valid"][:, None], MASKED_SCORE).softmax(-1)
        return torch.tanh(self.combine(torch.cat([weights @ encoded["memory"], queries], -1)))

    def _attend_step_by_step(self, x: Tensor, hidden: Tensor, encoded: State) -> Tensor:
        cell, attended, outputs = torch.zeros_like(hidden), torch.zeros_like(hidden[0]), []
        for step in self.dropouts[0](x).unbind(1):
            hidden, cell = self._advance(torch.cat([step, attended], -1), hidden, cell)
            attended = self._attend(hidden[-1][:, None], encoded)[:, 0]
            outputs.append(attended)
        return torch.stack(outputs, 1)

    def _advance(self, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """Run one step of all layers: ``(rows, inputs)`` and twice ``(layers, rows, units)`` -> the next of these two.

        Dropout of the input is applied before; dropout between layers has the same mask at every step.
        """
        states = []
        for number, lstm in enumerate(self.decoder):
            states.append(lstm.step(self.dropouts[number](x) if number else x, hidden[number], cell[number]))
            x = states[-1][0]
        hiddens, cells = zip(*states, strict=True)
        return torch.stack(hiddens), torch.stack(cells)

"""PyTorch's LSTM with attention: the whole forward pass, step by step, and in a search."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tests.workers.lstm_attention.cases import (
    LENGTHS,
    LONGER,
    PREVIOUS,
    SIZES,
    SOURCE,
    SPECS,
    WIDTH,
    drawn,
    searched,
    spec_of,
    steps,
)
from toolkit.layers import torch as layers
from toolkit.models.lstm_attention.torch import LSTMAttention
from toolkit.tasks.seq2seq.spec import Seq2Seq as Task
from toolkit.tasks.seq2seq.torch import Seq2Seq


def tensors(*arrays: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(a) for a in arrays]


def compute(given: dict[str, Any]) -> dict[str, Any]:
    torch.set_num_threads(1)
    out: dict[str, Any] = {}
    for name in SPECS:
        spec = spec_of(name)
        model = LSTMAttention(spec, *SIZES).eval()
        layers.set_weights(model, drawn(spec))
        out |= logits(f"{name}/float32", model)
        with torch.autocast("cpu", torch.bfloat16):
            out |= logits(f"{name}/mixed", model)
        out |= logits(f"{name}/float64", model.double())
        out |= {f"{name}/{key}": value for key, value in search(model).items()}
    return out


@torch.no_grad()
def logits(name: str, model: LSTMAttention) -> dict[str, Any]:
    whole = model(*tensors(SOURCE, LENGTHS, np.array(PREVIOUS, np.int32)))[0]
    state, found = model.start(*tensors(LONGER, LENGTHS), WIDTH), []
    for parents, tokens in steps():
        step, state = model.step(state, *tensors(tokens, parents))
        found.append(step)
    return {name: whole, f"{name}/walk": torch.stack(found, 1)}


def search(model: LSTMAttention) -> dict[str, np.ndarray]:
    task = Seq2Seq(Task(), None, model)

    def stepper(width: int) -> Any:
        source, lengths = tensors(SOURCE, LENGTHS)
        state = [task.begin({"source": source, "source_lengths": lengths}, width)]

        def step(tokens: np.ndarray, parents: np.ndarray) -> np.ndarray:
            log_probs, state[0] = task.advance(state[0], *tensors(tokens, parents))
            return log_probs.detach().numpy()

        return step

    return searched(stepper)

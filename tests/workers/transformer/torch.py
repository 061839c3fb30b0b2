"""PyTorch's Transformer: step by step beside the whole forward pass, and beside the layers that PyTorch has."""

from __future__ import annotations

from typing import Any

import torch

from tests.workers.transformer.cases import LENGTHS, SPECS, VOCABULARY, WIDTH, drawn, sources, walk
from toolkit.layers.torch import set_weights
from toolkit.models.transformer.spec import Transformer as Spec
from toolkit.models.transformer.torch import Transformer


def model_of(spec: Spec, dtype: torch.dtype = torch.float64) -> Transformer:
    model = Transformer(spec, VOCABULARY, VOCABULARY).to(dtype).eval()
    set_weights(model, drawn(spec))
    return model


@torch.no_grad()
def compute(given: dict[str, Any]) -> dict[str, Any]:
    torch.set_num_threads(1)
    out: dict[str, Any] = {}
    for name, spec in SPECS.items():
        for part in (steps(spec), bfloat16(spec), beside_pytorch(name, spec)):
            out |= {f"{name}/{key}": value for key, value in part.items()}
    refuse_too_long(model_of(SPECS["post"]))
    return out


def steps(spec: Spec) -> dict[str, torch.Tensor]:
    """Each step of the walk, beside the whole forward pass on what each row has by then."""
    model = model_of(spec)
    source, lengths = torch.from_numpy(sources()), torch.from_numpy(LENGTHS)
    wide_source, wide_lengths = (x.repeat_interleave(WIDTH, 0) for x in (source, lengths))
    state, out = model.start(source, lengths, WIDTH), {}
    for number, (tokens, parents, so_far) in enumerate(walk()):
        before = dict(state)
        logits, state = model.step(state, torch.from_numpy(tokens), torch.from_numpy(parents))
        whole, found = model(wide_source, wide_lengths, torch.from_numpy(so_far))
        out |= {f"step/{number}": logits, f"whole/{number}": whole[:, -1]}
        again, _ = model.step(before, torch.from_numpy(tokens), torch.from_numpy(parents))
        assert torch.equal(again, logits)  # a step leaves the state that it is given as it was
    return out | {"source": found["source"][::WIDTH], "target": found["target"]}


def bfloat16(spec: Spec) -> dict[str, torch.Tensor]:
    model, zero = model_of(spec, torch.float32), torch.zeros(3, dtype=torch.int32)
    source, lengths = torch.from_numpy(sources()), torch.from_numpy(LENGTHS)
    with torch.autocast("cpu", torch.bfloat16):
        logits, _ = model.step(model.start(source, lengths, 1), zero, zero)
        assert logits.dtype == torch.float32
        return {"bfloat16/step": logits, "bfloat16/whole": model(source, lengths, zero[:, None])[0][:, 0]}


def refuse_too_long(model: Transformer) -> None:
    nine, ten = torch.ones(1, 9, dtype=torch.int32), torch.ones(1, 10, dtype=torch.int32)
    model(nine, torch.tensor([9]), nine)
    state, zero = model.start(nine, torch.tensor([9]), 1), torch.zeros(1, dtype=torch.int32)
    for _ in range(9):
        _, state = model.step(state, zero, zero)
    for wrong in (
        lambda: model(ten, torch.tensor([10]), nine),
        lambda: model(nine, torch.tensor([9]), ten),
        lambda: model.start(ten, torch.tensor([10]), 1),
        lambda: model.step(state, zero, zero),
    ):
        try:
            wrong()
        except ValueError as error:
            assert str(error) == "the input has 10 tokens, more than model.max_positions (9)", error
        else:
            raise AssertionError("too long an input was taken")


def beside_pytorch(name: str, spec: Spec) -> dict[str, torch.Tensor]:
    """The logits of the model, and those that PyTorch's own layers give with its weights."""
    model = model_of(spec)
    source, lengths = torch.from_numpy(sources()), torch.from_numpy(LENGTHS)
    previous = torch.from_numpy(list(walk())[-1][2])[::WIDTH]
    _, found = model(source, lengths, previous)
    padding = torch.arange(source.shape[1]) >= lengths[:, None]
    later = torch.ones(previous.shape[1], previous.shape[1], dtype=torch.bool).triu(1)
    sizes = dict(d_model=spec.dim, nhead=spec.heads, dim_feedforward=spec.feed_forward, dropout=0.0, batch_first=True)
    sizes |= dict(activation=spec.activation, norm_first=spec.norm == "pre")
    x = found["source"]
    for own in model.encoder:
        x = copied(torch.nn.TransformerEncoderLayer(**sizes), own, 2)(x, src_key_padding_mask=padding)
    memory = model.encoder_norm(x) if spec.norm == "pre" else x
    x = found["target"]
    for own in model.decoder:
        stock = copied(torch.nn.TransformerDecoderLayer(**sizes), own, 3)
        x = stock(x, memory, tgt_mask=later, memory_key_padding_mask=padding)
    x = model.decoder_norm(x) if spec.norm == "pre" else x
    head = model.head if name == "pre" else model.embedding if name == "shared" else model.target_embedding
    return {"stock": x @ head.weight.T, "own": found["logits"]}


def copied(stock: torch.nn.Module, own: Any, norms: int) -> torch.nn.Module:
    """A layer of PyTorch's with the weights of ours: its keys have a bias, and one matrix has query, key and value."""
    state = {}
    pairs = [("self_attn", own.self_attention)] + ([("multihead_attn", own.cross_attention)] if norms == 3 else [])
    for theirs, attention in pairs:
        parts = attention.query, attention.key, attention.value
        state[f"{theirs}.in_proj_weight"] = torch.cat([part.weight for part in parts])
        biases = [attention.query.bias, torch.zeros_like(attention.query.bias), attention.value.bias]
        state[f"{theirs}.in_proj_bias"] = torch.cat(biases)
        state |= {f"{theirs}.out_proj.{k}": v for k, v in attention.out.state_dict().items()}
    for number in (1, 2):
        linear = getattr(own.feed_forward, f"linear{number}")
        state |= {f"linear{number}.{k}": v for k, v in linear.state_dict().items()}
    for number in range(1, norms + 1):
        state |= {f"norm{number}.{k}": v for k, v in getattr(own, f"residual{number}").norm.state_dict().items()}
    stock.load_state_dict(state)
    return stock.double().eval()

"""Computes the cases of the twin tests in PyTorch: ``python -m tests.twins.torch_worker JOB FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tests.twins import cases
from tests.twins.content.audio import speech
from tests.twins.content.base import ROWS, SEED, Arrays
from tests.twins.content.text import BEAM, walk
from toolkit.config.build import build
from toolkit.features.log_mel.spec import LogMel
from toolkit.layers import torch as layers
from toolkit.layers.basic.torch import valid_frames
from toolkit.layers.dropout.torch import Dropout
from toolkit.layers.normalization.torch import BatchNorm
from toolkit.layers.recurrent.torch import LSTM, reverse
from toolkit.models.conformer_ctc.spec import ConformerCTC


def models(folder: Path) -> None:
    """Every case in ``cases.json``."""
    cases.work("torch", _model, folder)


def _model(case: cases.Case, given: Arrays) -> Arrays:
    features = case.spec("features") and build(case.spec("features"), "torch", case.state())
    model = build(case.spec("models"), "torch", *case.sizes())
    layers.set_weights(model, given)
    cases.check_kept(given, layers.get_weights(model))
    layers.bind(model, SEED)
    layers.set_step(model, cases.STEP)
    task = build(case.spec("tasks"), "torch", features, model).to(getattr(torch, case.dtype)).train(case.training)
    batch = {name: torch.from_numpy(array) for name, array in case.batch().items()}
    if not case.training:
        with torch.no_grad():
            return _arrays(_intermediates(task(batch))) | _answers(case, task, batch)
    seen: list[Any] = []
    task.register_forward_hook(lambda module, arguments, returned: seen.append(returned))
    loss = task.loss(batch)
    loss.backward()
    out = _intermediates(*seen) | {"loss": loss}
    out |= {f"gradient.{name}": parameter.grad for name, parameter in model.named_parameters()}
    return _arrays(out | {f"after.{name}": model.get_buffer(name) for name in given if name not in _trained(model)})


def _intermediates(returned: Any) -> dict[str, torch.Tensor]:
    """Every intermediate, and lengths."""
    _, *lengths, intermediates = returned
    return intermediates | {f"lengths.{i}": length for i, length in enumerate(lengths)}


def _arrays(tensors: dict[str, torch.Tensor]) -> Arrays:
    return {name: value.detach().numpy() for name, value in tensors.items()}


def _answers(case: cases.Case, task: Any, batch: dict[str, torch.Tensor]) -> Arrays:
    """An evaluation, and a prediction or a search from the inputs."""
    evaluated, inputs = _arrays(task.evaluate(batch)), case.inputs(batch)
    if task.spec.autoregressive:
        return cases.answers(task.spec, evaluated, {}) | _arrays(_steps(task, inputs, case.rows))
    return cases.answers(task.spec, evaluated, _arrays(task.predict(inputs)))


def _steps(task: Any, inputs: dict[str, torch.Tensor], rows: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """Arguments of a search at every step."""
    state, found = task.begin(inputs, BEAM), []
    for tokens, parents in walk(rows):
        log_probs, state = task.advance(state, torch.from_numpy(tokens), torch.from_numpy(parents))
        found.append(log_probs)
    return {"steps": torch.stack(found, 1).unflatten(0, (len(rows), BEAM))}


def _trained(model: nn.Module) -> set[str]:
    return {name for name, _ in model.named_parameters()}


def parts(folder: Path) -> None:
    """Features and layers by themselves, in ``parts.torch.npz``."""
    out: dict[str, torch.Tensor] = {}
    batch = {name: torch.from_numpy(array) for name, array in speech(LogMel(), ROWS, True).items()}
    masks = batch["time_masks"], batch["frequency_masks"]
    for name, spec in cases.feature_specs().items():
        features = build(spec, "torch", cases.feature_state(spec, folder)).float()
        for kind, drawn in (("masked", masks), ("whole", [0 * mask for mask in masks])):
            values, lengths = features(batch["waveforms"], batch["waveform_lengths"], *drawn)
            out |= {f"{name}.{kind}": values, f"{name}.{kind}.lengths": lengths}

    for step in cases.STEPS:
        for path, rate, shape, native in cases.DROPOUTS:
            dropout = Dropout(rate, native)
            layers.bind(nn.ModuleDict({path: dropout}), SEED)
            layers.set_step(dropout, step)
            kind = "native" if native else "hash"
            out[f"dropout.{kind}.{path}.{step}"] = dropout(torch.ones(shape)) != 0
            layers.set_step(dropout, step)  # as after a resume
            out[f"dropout.{kind}.{path}.{step}.again"] = dropout(torch.ones(shape)) != 0
            out[f"dropout.{kind}.{path}.{step}.evaluating"] = dropout.eval()(torch.ones(shape))
    out |= _norm() | _pictures() | _lstm() | {"too_long": torch.tensor(_refuses_what_is_too_long())}
    np.savez(folder / "parts.torch.npz", **{name: value.detach().numpy() for name, value in out.items()})


def _refuses_what_is_too_long() -> bool:
    model = build(ConformerCTC(max_positions=10), "torch", 80, 5)
    model.eval()(torch.zeros(1, 43, 80), torch.tensor([43]))  # 10 steps
    try:
        model(torch.zeros(1, 47, 80), torch.tensor([47]))
    except ValueError as error:
        return "max_positions" in str(error)
    return False


def _norm() -> dict[str, torch.Tensor]:
    """Batch norm beside PyTorch's own, which sees the valid frames only."""
    x, lengths = (torch.from_numpy(a) for a in cases.sequences())
    valid = valid_frames(lengths, x.shape[1])
    own, stock = BatchNorm(x.shape[2]).double(), nn.BatchNorm1d(x.shape[2]).double()
    out = {"norm.own": own(x, valid)[valid], "norm.stock": stock(x[valid])}
    out |= {"norm.own.mean": own.running_mean, "norm.stock.mean": stock.running_mean}
    return out | {"norm.own.variance": own.running_var, "norm.stock.variance": stock.running_var}


def _pictures() -> dict[str, torch.Tensor]:
    """Batch norm of many pixels, channels last, in float32; beside PyTorch's own in float64."""
    made = cases.pixels()
    out: dict[str, torch.Tensor] = {}
    for name, norm in (("own", BatchNorm(made.shape[1])), ("stock", nn.BatchNorm2d(made.shape[1]).double())):
        x = torch.tensor(made, dtype=norm.weight.dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
        y = norm(x)
        (y * y.sin()).sum().backward()
        found = {"pictures": y, "pictures.mean": norm.running_mean, "pictures.variance": norm.running_var}
        gradients = {"pictures": x.grad, "scale": norm.weight.grad, "shift": norm.bias.grad}
        found |= {f"gradient.{of}": value for of, value in gradients.items()}
        out |= {f"{of}.{name}": value for of, value in found.items()}
    return out


def _lstm() -> dict[str, torch.Tensor]:
    """Both directions beside PyTorch's own on packed sequences."""
    x, lengths = (torch.from_numpy(a) for a in cases.sequences())
    stock = nn.LSTM(x.shape[2], 6, batch_first=True, bidirectional=True).double()
    forwards, backwards = LSTM(x.shape[2], 6).double(), LSTM(x.shape[2], 6).double()
    with torch.no_grad():
        for suffix, layer in (("", forwards), ("_reverse", backwards)):
            for name, value in layer.named_parameters():
                stock.get_parameter(f"{name}{suffix}").copy_(value)
            stock.get_parameter(f"bias_hh_l0{suffix}").zero_()
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    expected, _ = nn.utils.rnn.pad_packed_sequence(stock(packed)[0], batch_first=True)
    turned = reverse(backwards(reverse(x, lengths)), lengths)
    found = torch.cat([forwards(x), turned], -1) * valid_frames(lengths, x.shape[1])[..., None]
    return {"lstm.own": found, "lstm.stock": expected}


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"models": models, "parts": parts}[sys.argv[1]](Path(sys.argv[2]))

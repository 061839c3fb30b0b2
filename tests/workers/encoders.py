"""Put another head on every encoder: ``python -m tests.workers.encoders BACKEND``, a JSON object to standard output."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import toolkit
from tests.support import tiny
from toolkit.config.build import build
from toolkit.config.process import prepare
from toolkit.config.spec import is_spec
from toolkit.layers import parameters

INPUTS, OUTPUTS, CLASSES, FRAMES = 20, 7, 3, 40


def models() -> Iterator[tuple[Any, Any]]:
    """Yield the small spec of every CTC model and that of its encoder."""
    for path in sorted(Path(toolkit.__path__[0]).glob("models/*_ctc/spec.py")):
        module = importlib.import_module(f"toolkit.models.{path.parent.name}.spec")
        (kind,) = (value for value in vars(module).values() if is_spec(value) and value.__module__ == module.__name__)
        (encoder,) = (base for base in kind.__bases__ if is_spec(base))
        yield tiny.make(kind), tiny.make(encoder)


def refuses(adopt: Callable[[], Any]) -> str:
    """Return the message of the ValueError that ``adopt`` raises, or nothing."""
    try:
        adopt()
    except ValueError as error:
        return str(error)
    return ""


def run_torch() -> dict[str, Any]:
    import torch
    from torch import nn

    from toolkit.layers import torch as layers
    from toolkit.layers.basic.torch import Head

    class Classifier(nn.Module):
        """Another head on an encoder."""

        def __init__(self, encoder: nn.Module, width: int) -> None:
            super().__init__()
            self.encode = layers.adopt(self, encoder)
            self.classes = Head(width, CLASSES)

        def forward(self, features: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
            x, _, _ = self.encode(features, lengths)
            return self.classes(x.mean(1))

    report: dict[str, Any] = {}
    features, lengths = torch.from_numpy(random_features()), torch.tensor([FRAMES, FRAMES - 9])
    for spec, encoder_spec in models():
        weights = parameters.initial(spec.parameters(INPUTS, OUTPUTS), 3)
        model = build(spec, "torch", INPUTS, OUTPUTS).eval()
        encoder = build(encoder_spec, "torch", INPUTS).eval()
        layers.set_weights(model, weights)
        layers.set_weights(encoder, {name: weights[name] for name in encoder_spec.encoder_parameters(INPUTS)})
        logits, _, _ = model(features, lengths)
        x, _, _ = encoder(features, lengths)
        classifier = Classifier(encoder, encoder_spec.width).eval()
        report[type(spec).__name__] = {
            "same logits": torch.equal(model.head(x), logits),
            "names": list(layers.get_weights(classifier)),
            "shape": list(classifier(features, lengths).shape),
            "two encoders": refuses(lambda model=model, encoder=encoder: layers.adopt(model, encoder)),
        }
    report["own parameters"] = refuses(lambda: layers.adopt(nn.Module(), nn.Linear(2, 2)))
    return report


def run_tf() -> dict[str, Any]:
    import keras
    import tensorflow as tf

    from toolkit.layers import tf as layers
    from toolkit.layers.basic.tf import Head, dense

    class Classifier(keras.Model):
        """Another head on an encoder."""

        def __init__(self, encoder: keras.layers.Layer, width: int) -> None:
            super().__init__()
            self.encode = layers.adopt(self, encoder)
            self.classes = Head(width, CLASSES)
            self.built = True

        def call(self, features: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
            x, _, _ = self.encode(features, lengths)
            return self.classes(tf.reduce_mean(x, 1))

    report: dict[str, Any] = {}
    features, lengths = tf.constant(random_features()), tf.constant([FRAMES, FRAMES - 9])
    for spec, encoder_spec in models():
        weights = parameters.initial(spec.parameters(INPUTS, OUTPUTS), 3)
        model = build(spec, "tf", INPUTS, OUTPUTS)
        encoder = build(encoder_spec, "tf", INPUTS)
        layers.set_weights(model, weights)
        layers.set_weights(encoder, {name: weights[name] for name in encoder_spec.encoder_parameters(INPUTS)})
        logits, _, _ = model(features, lengths)
        x, _, _ = encoder(features, lengths)
        classifier = Classifier(encoder, encoder_spec.width)
        report[type(spec).__name__] = {
            "same logits": bool(np.array_equal(model.head(x), logits)),
            "names": list(layers.get_weights(classifier)),
            "shape": list(classifier(features, lengths).shape),
            "two encoders": refuses(lambda model=model, encoder=encoder: layers.adopt(model, encoder)),
        }
    report["own parameters"] = refuses(lambda: layers.adopt(keras.layers.Layer(), dense(2, 2)))
    return report


def random_features() -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=5)).standard_normal((2, FRAMES, INPUTS)).astype(np.float32)


if __name__ == "__main__":
    prepare(sys.argv[1])
    print(json.dumps({"torch": run_torch, "tf": run_tf}[sys.argv[1]]()))

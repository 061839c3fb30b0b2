"""Compute features without augmentation: ``python -m tests.workers.features BACKEND OUTPUT``.

Every case is computed twice: ``NAME/omitted`` without augmentation arguments, ``NAME/evaluation`` with those of an
evaluation batch.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from tests.twins.content.audio import speech
from tests.twins.content.base import ROWS
from tests.workers.image import cases as image_cases
from toolkit.config.build import build
from toolkit.config.process import prepare
from toolkit.data.columns import audio, image
from toolkit.features.image.spec import Erase
from toolkit.features.log_mel.spec import LogMel

Arrays = dict[str, np.ndarray]
Case = tuple[str, Any, Arrays, Arrays, Arrays]  # name, spec, state, inputs, augmentation of an evaluation batch


def calls() -> Iterator[Case]:
    """Every image case and both normalizations of log-mel."""
    for name, (spec, *_) in image_cases.CASES.items():
        images = image_cases.images(name)
        plain = replace(spec, crop="none", flip=0.0, erase=Erase(0.0), mixup=0.0)
        drawn = plain.draw_batch(*images.shape[1:3], 0, 0, np.arange(len(images)))
        yield name, spec, image_cases.STATE, {"images": images}, drawn
    batch = speech(LogMel(), ROWS, training=True)
    inputs = {"waveforms": batch["waveforms"], "lengths": batch["waveform_lengths"]}
    masks = {name: 0 * batch[name] for name in audio.MASKS}  # of no width
    for normalize in ("utterance", "none"):
        yield f"log_mel {normalize}", LogMel(normalize=normalize), {}, inputs, masks


def run_torch() -> Arrays:
    import torch

    torch.set_num_threads(1)
    outputs = {}
    for name, spec, state, inputs, augmentation in calls():
        features = build(spec, "torch", state)
        for kind, arrays in (("omitted", inputs), ("evaluation", inputs | augmentation)):
            result = features(**{key: torch.from_numpy(array) for key, array in arrays.items()})
            outputs[f"{name}/{kind}"] = (result if torch.is_tensor(result) else result[0]).numpy()
    return outputs


def run_tf() -> Arrays:
    """In a graph that takes any shape, as the engine's do: constant shapes would let TensorFlow fold divisions."""
    import tensorflow as tf

    from toolkit.data.loaders.tf import signature

    specs = signature(audio.FIELDS | audio.MASKS | image.FIELDS | image.AUGMENTATION)
    specs["lengths"] = specs["waveform_lengths"]

    outputs = {}
    for name, spec, state, inputs, augmentation in calls():
        features = build(spec, "tf", state)
        for kind, arrays in (("omitted", inputs), ("evaluation", inputs | augmentation)):
            compute = tf.function(features, autograph=False).get_concrete_function(
                **{key: specs[key] for key in arrays}
            )
            result = compute(**{key: tf.constant(array) for key, array in arrays.items()})
            outputs[f"{name}/{kind}"] = (result if tf.is_tensor(result) else result[0]).numpy()
    return outputs


if __name__ == "__main__":
    backend, path = sys.argv[1:]
    prepare(backend)
    np.savez(path, **{"torch": run_torch, "tf": run_tf}[backend]())

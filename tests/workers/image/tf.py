"""The TensorFlow image features on every case, in a graph that takes any shape."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tests.workers.image.cases import CASES, FIELDS, NARROW, STATE
from toolkit.config.build import build
from toolkit.data.columns import image
from toolkit.data.loaders.tf import signature

KINDS = (("float32", "float32"), ("float64", "float64"), ("bf16", "mixed_bfloat16"))


def compute(given: dict[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    specs = signature(image.FIELDS | image.AUGMENTATION)
    for name, (spec, *_) in CASES.items():
        args = [tf.constant(given[f"{name}/{field}"]) for field in FIELDS]
        for dtype, policy in KINDS:
            if dtype == "bf16" and name not in NARROW:
                continue
            keras.config.set_floatx("float64" if dtype == "float64" else "float32")
            keras.config.set_dtype_policy(policy)
            features = build(spec, "tf", STATE)
            compute = tf.function(features, input_signature=[specs[field] for field in FIELDS], autograph=False)
            found = compute(*args)
            assert found.dtype == (tf.float64 if dtype == "float64" else tf.float32)
            out[f"{name}/{dtype}"] = found
    return out

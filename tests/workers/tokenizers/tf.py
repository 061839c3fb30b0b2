"""Ids and texts of the TensorFlow tokenizers, in graphs that take any text."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tests.workers.tokenizers.cases import read, twins, write


def compute(given: dict[str, Any]) -> dict[str, Any]:
    lines, cases = read(given)
    found = {}
    for name, twin in twins(cases, "tf"):
        back = tf.function(twin.detokenize, input_signature=[tf.RaggedTensorSpec([None, None], tf.int32)])
        there = tf.function(twin, input_signature=[tf.TensorSpec([None], tf.string)])
        ids = there(tf.constant(lines))
        blanks = tf.concat([tf.zeros([len(lines), 1], tf.int32), ids], 1)
        assert there(tf.constant([""])).to_list() == [[]]
        found[name] = dict(ids=ids.to_list(), texts=[text.decode() for text in back(blanks).numpy()])
    return write(found)

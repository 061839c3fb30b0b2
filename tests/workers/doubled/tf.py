"""Double arrays, in TensorFlow."""

import tensorflow as tf


def compute(given):
    return {name: tf.constant(array) * 2 for name, array in given.items()}

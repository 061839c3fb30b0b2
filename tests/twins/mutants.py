"""Errors that TensorFlow's twin is given on purpose, to see which of them each limit finds."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any
from unittest import mock

from tests.twins.cases import Case


@dataclass(frozen=True)
class Mutant:
    """An error in the meaning of one part.

    Args:
        model: folder under ``toolkit/models``, a model that has the part.
        patch: a context in which TensorFlow's twin has the error.
        place: how the first difference begins in float64.
        in_float32: large enough to be found in float32.
    """

    model: str
    patch: Callable[[], AbstractContextManager[Any]]
    place: str
    in_float32: bool = True


def epsilon(value: float) -> Callable[[], AbstractContextManager[Any]]:
    return lambda: mock.patch("toolkit.layers.spec.NORM_EPSILON", value)


def tanh_gelu() -> AbstractContextManager[Any]:
    """The approximation, a default of some libraries."""
    import tensorflow as tf

    return mock.patch("toolkit.models.vit.tf.gelu", lambda x: tf.nn.gelu(x, approximate=True))


@contextlib.contextmanager
def biased_variance() -> Iterator[None]:
    """Running variance of batch norm without the correction, as Keras has it."""
    import tensorflow as tf

    from toolkit.layers.tf import BatchNorm

    call, run = BatchNorm.call, BatchNorm._run
    counts = []

    def counting(self: BatchNorm, x: Any, valid: Any = None, training: bool = False) -> Any:
        counts.append(tf.size(x[..., 0], tf.int64))
        return call(self, x, valid, training)

    def wrong(self: BatchNorm, mean: Any, unbiased: Any) -> None:
        count = tf.cast(counts[-1], unbiased.dtype)
        run(self, mean, unbiased * (count - 1) / count)

    with mock.patch.object(BatchNorm, "call", counting), mock.patch.object(BatchNorm, "_run", wrong):
        yield


MUTANTS = {
    "keras_epsilon": Mutant("transformer", epsilon(1e-3), "encoder."),
    "tanh_gelu": Mutant("vit", tanh_gelu, "blocks."),
    "biased_variance": Mutant("cnn", biased_variance, "after."),
    # changes the output of a layer norm by 3e-8, less than float32 rounds: only float64 can find it
    "slight_epsilon": Mutant("transformer", epsilon(1.01e-5), "", in_float32=False),
}


def cases() -> list[Case]:
    """The results of the workers for all mutants."""
    return [case for name in MUTANTS for case in cases_of(name)]


def cases_of(name: str) -> tuple[Case, Case]:
    """The float32 and the float64 case that are otherwise those of the right model."""
    model = MUTANTS[name].model
    common: dict[str, Any] = {
        "dropout": 0.2,
        "mutant": name,
        "shallow": True,
    }  # no graph, which takes ten times as long
    return Case(model, f"narrow.{name}", dtype="float32", **common), Case(model, f"reference.{name}", **common)

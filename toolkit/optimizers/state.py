"""The state of an optimizer, with the same names and layouts in both frameworks.

Either backend resumes a checkpoint of the other. The state has ``<moment>.<parameter>`` for each name in the spec's
``moments``, in canonical layout, and ``step``, shape ``(1,)``, int64: the number of optimizer steps taken. A state with
``exp_avg_sq`` also has ``exp_avg_sq_scale``, shape ``(1,)``, float64: the factor by which the backend that wrote the
second moments multiplies them. It is 1 except for a constant of TensorFlow's kernel (``optimizers/adamw/tf.py``). A
backend reads its own state bit for bit, and rescales the state of the other one.

The spec's ``lr`` is the peak: the loop multiplies it by the schedule's factor at every step. Weight decay applies to
the parameters that :func:`toolkit.layers.parameters.decays` selects (matrices and kernels, not biases and norms).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

SHOWN = 5  # problems named in a message


def moment_of(state: Mapping[str, np.ndarray], moment: str, name: str, scale: float) -> np.ndarray:
    """Return a parameter's moment, rescaled for a backend that multiplies second moments by ``scale``."""
    array = state[f"{moment}.{name}"]
    written = float(state["exp_avg_sq_scale"][0]) if moment == "exp_avg_sq" else scale
    return array if written == scale else (array * (scale / written)).astype(array.dtype)


def check_state(
    state: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]], moments: tuple[str, ...]
) -> None:
    """Compare the saved state of an optimizer with the parameters of the model.

    Args:
        state: canonical name -> array, as described above.
        shapes: canonical parameter name -> shape.
        moments: names of the moments that this optimizer keeps.

    Raises:
        ValueError: a name is missing or unexpected, or a shape differs.
    """
    expected = {f"{moment}.{name}": tuple(shape) for name, shape in shapes.items() for moment in moments}
    expected["step"] = (1,)
    if "exp_avg_sq" in moments:
        expected["exp_avg_sq_scale"] = (1,)
    problems = [f"optimizer state lacks {name}" for name in expected if name not in state]
    problems += [
        f"optimizer state has {name}, which this optimizer does not keep" for name in state if name not in expected
    ]
    problems += [
        f"optimizer state {name}: found shape {state[name].shape}, expected {shape}"
        for name, shape in expected.items()
        if name in state and state[name].shape != shape
    ]
    if problems:
        more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        raise ValueError("; ".join(problems[:SHOWN] + more))

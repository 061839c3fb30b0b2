"""The contract of a model spec."""

from __future__ import annotations

from typing import Any, ClassVar

from toolkit.layers.spec import Parameters


class Model:
    """Base of a model spec: the kind of column that it reads, and what it gives for it."""

    input: ClassVar[str]  # kind of the input column
    output: ClassVar[str]  # frames, tokens or classes, as the task asks for
    native_dropout: bool = False  # a field of a model with dropout: use the framework's own

    @property
    def longest(self) -> int | None:
        """Longest input or output in the model's own steps; None where it has no bound."""
        return None

    def output_length(self, frames: Any) -> Any:
        """Output frames for a number of input frames; int, numpy array or tensor."""
        raise NotImplementedError

    def parameters(self, inputs: Any, outputs: Any) -> Parameters:
        """The parameters of both twins, by canonical name.

        Args:
            inputs: size of the input end, of the input column.
            outputs: size of the output end, of the target column.
        """
        raise NotImplementedError

"""The contract of a model spec."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from toolkit.layers.spec import Parameters

if TYPE_CHECKING:
    from toolkit.config.schema import Run


class Model:
    """Base of a model spec: the kind of column that it reads, and what it gives for it."""

    input: ClassVar[str]  # kind of the input column
    output: ClassVar[str]  # frames, tokens or classes, as the task asks for
    native_dropout: bool = False  # a field of a model with dropout: use the framework's own

    @property
    def longest(self) -> int | None:
        """Longest input or output in the model's own steps; None where it has no bound."""
        return None

    def check_run(self, run: Run) -> Iterator[tuple[str, str]]:
        """Yield the conflicts of this model with other components.

        Only the toolkit's own dropout masks are those of the whole batch on several devices.
        """
        if self.native_dropout and run.trainer.total_devices > 1:
            message = f"true is not supported with {run.trainer.total_devices} devices; set model.native_dropout=false"
            yield "native_dropout", message

    def output_length(self, frames: Any) -> Any:
        """Return the number of output frames for a number of input frames; int, numpy array or tensor."""
        raise NotImplementedError

    def parameters(self, inputs: Any, outputs: Any) -> Parameters:
        """List the parameters of both twins, by canonical name.

        Args:
            inputs: size of the input end, of the input column.
            outputs: size of the output end, of the target column.
        """
        raise NotImplementedError

"""Token ids as they are: what a translation model sees of a sentence."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from toolkit.config.spec import option, spec


@spec
class Tokens:
    """Nothing is computed and nothing is learned; the model embeds the ids itself."""

    domains: ClassVar[tuple[str, ...]] = ("translation",)

    max_tokens: int = option(256, "a pair with a side of more tokens is bad (dataset.on_bad)", ge=1)

    def learn(self, examples: Iterable[Any], folder: Path) -> None:
        """There is nothing to learn."""

    def load(self, folder: Path) -> dict[str, np.ndarray]:
        """An empty state."""
        return {}

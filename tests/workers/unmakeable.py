"""A run whose third batch of training cannot be made: ``python -m tests.workers.unmakeable OVERRIDE ...``."""

from __future__ import annotations

import itertools
import sys
from typing import Any

from toolkit.cli import run
from toolkit.data.split import Collator

made = itertools.count(1)
collate = Collator.__call__


def fail_at_the_third(self: Collator, *args: Any, **kwargs: Any) -> Any:
    if next(made) == 3:
        raise ValueError("an image of no size")
    return collate(self, *args, **kwargs)


Collator.__call__ = fail_at_the_third  # type: ignore[method-assign]

if __name__ == "__main__":
    sys.exit(run.main(sys.argv[1:]))

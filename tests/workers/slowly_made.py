"""A run that fails at its first step while batches are being made: ``python -m tests.workers.slowly_made ...``."""

from __future__ import annotations

import sys
import time
from typing import Any

from toolkit.cli import run
from toolkit.data.split import Collator
from toolkit.training.stock.session import StockSession

collate = Collator.__call__


def late(self: Collator, *args: Any, **kwargs: Any) -> Any:
    time.sleep(0.5)
    return collate(self, *args, **kwargs)


def fail(self: StockSession, loss: object) -> bool:
    raise ValueError("no step")


Collator.__call__ = late  # type: ignore[method-assign]
StockSession.batch_end = fail  # type: ignore[method-assign]

if __name__ == "__main__":
    sys.exit(run.main(sys.argv[1:]))

"""Hold a run folder, with a child that outlives this process: ``python -m tests.workers.holder FOLDER``."""

import os
import sys
import time
from pathlib import Path

from toolkit.runs.folder import RunFolder

if __name__ == "__main__":
    folder = RunFolder(Path(sys.argv[1]))
    if os.fork() == 0:  # as the workers of a loader
        time.sleep(60)
    print(os.getpid(), flush=True)
    time.sleep(60)

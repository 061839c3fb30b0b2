"""A run without a temporary folder of its own: ``python -m tests.workers.littering ARGUMENTS``."""

import sys

from toolkit import run
from toolkit.training import processes

if __name__ == "__main__":
    processes.own_temporary_folder = lambda: None
    sys.exit(run.run(sys.argv[1:]))

"""A process that sends itself two signals during a training: ``python -m tests.workers.signals FIRST SECOND``."""

import os
import sys

from toolkit.training.signals import Signals

if __name__ == "__main__":
    first, second = map(int, sys.argv[1:])
    with Signals() as signals:
        os.kill(os.getpid(), first)
        print("caught", signals.caught, flush=True)
        os.kill(os.getpid(), second)
        print("still here", flush=True)

"""Say what kind of process this is, or end in some way: for the tests of ``tests/workers/serve.py``."""

import json
import os
import signal
import sys
import time

import toolkit

FRAMEWORKS = ("torch", "tensorflow")

if __name__ == "__main__":
    match sys.argv[1:]:
        case ["divide"]:
            print(1 / 0)
        case ["exit"]:
            sys.exit(7)
        case ["kill"]:
            os.kill(os.getpid(), signal.SIGKILL)
        case ["wait"]:
            time.sleep(60)
        case arguments:
            toolkit.calls = vars(toolkit).get("calls", 0) + 1
            found = {
                "arguments": arguments,
                "cwd": os.getcwd(),
                "input": sys.stdin.read(),
                "environment": [os.environ["SET_BY_THE_TEST"], os.environ["MORE"]],
                "name": __name__,
                "frameworks": [name for name in FRAMEWORKS if name in sys.modules],
                "pid": os.getpid(),
                "calls": toolkit.calls,
            }
            print(json.dumps(found))

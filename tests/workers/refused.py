"""Do runs that are refused before a framework is loaded: ``python -m tests.workers.refused CASE...``.

A case is a command line as a JSON list. Prints ``found``, the exit code and the standard error of each, and ``loaded``,
the frameworks that were imported.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys

from toolkit import run

FRAMEWORKS = {"torch", "tensorflow", "lightning", "keras"}


def main(cases: list[str]) -> None:
    found = []
    for case in cases:
        error = io.StringIO()
        with contextlib.redirect_stderr(error):
            code = run.run(json.loads(case))
        found.append([code, error.getvalue()])
    print(json.dumps({"found": found, "loaded": sorted(FRAMEWORKS & sys.modules.keys())}))


if __name__ == "__main__":
    main(sys.argv[1:])

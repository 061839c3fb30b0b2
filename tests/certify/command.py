"""``python -m tests.certify.command ...``: ``toolkit certify`` whose TensorFlow worker is wrong on purpose."""

from __future__ import annotations

import sys

from toolkit.certify import certificate
from toolkit.cli import certify

if __name__ == "__main__":
    certificate.WORKER = "tests.certify.mismatches"
    sys.exit(certify.main(sys.argv[1:]))

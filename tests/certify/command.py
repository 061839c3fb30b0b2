"""``python -m tests.certify.command ...``: ``toolkit.certify`` whose TensorFlow worker is wrong on purpose."""

from __future__ import annotations

from toolkit.certify import __main__ as command
from toolkit.certify import certificate

if __name__ == "__main__":
    certificate.WORKER = "tests.certify.mismatches"
    command.main()

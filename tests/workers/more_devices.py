"""Take the devices of two runs in one process, the second with more: ``python -m tests.workers.more_devices``."""

from __future__ import annotations

import tensorflow as tf

from toolkit.errors import ConfigError
from toolkit.training.spec import Trainer
from toolkit.training.strategies.tf import devices_of

if __name__ == "__main__":
    with devices_of(Trainer()).scope():
        tf.constant(1.0) + 1.0
    try:
        devices_of(Trainer(devices=2))
    except ConfigError as error:
        print(*error.problems)

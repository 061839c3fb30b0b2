"""An optimizer and a schedule from a package outside the repository, named by ``allow=``."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest

from tests.support.backend import BACKENDS, Backends

FILES = {
    "my_package/__init__.py": "",
    "my_package/sign/__init__.py": "",
    "my_package/sign/spec.py": """
        from typing import ClassVar
        from toolkit.config.spec import option, spec

        @spec
        class Sign:
            \"\"\"Steps along the sign of an average of the gradients.\"\"\"
            moments: ClassVar[tuple[str, ...]] = ("average",)
            lr: float = option(0.125, "peak learning rate", gt=0)
            decay: float = option(0.5, "factor on the average", ge=0, lt=1)
            weight_decay: float = option(0.0, "not used", ge=0)
        """,
    "my_package/sign/torch.py": """
        import torch
        from toolkit.optimizers.torch import count_steps, groups

        class Sign(torch.optim.Optimizer):
            def __init__(self, spec, named_parameters):
                super().__init__(groups(named_parameters, 0.0), {"lr": spec.lr})
                self.spec = spec
                count_steps(self)

            @torch.no_grad()
            def step(self, closure=None):
                for group in self.param_groups:
                    for parameter in group["params"]:
                        kept = self.state[parameter]
                        average = kept.setdefault("average", torch.zeros_like(parameter))
                        average.mul_(self.spec.decay).add_(parameter.grad)
                        parameter.sub_(group["lr"] * average.sign())
        """,
    "my_package/sign/tf.py": """
        import tensorflow as tf
        from toolkit.optimizers.tf import Optimizer

        class Sign(Optimizer):
            def _scalars(self, lr, dtype):
                return {"lr": tf.cast(lr, dtype)}

            def update_step(self, gradient, variable, learning_rate):
                average = self.moments["average"][self._get_variable_index(variable)]
                average.assign(average * self.spec.decay + gradient)
                variable.assign_sub(learning_rate["lr"] * tf.sign(average.value))
        """,
    "my_package/halving/__init__.py": "",
    "my_package/halving/spec.py": """
        from toolkit.config.spec import option, spec

        @spec
        class Halving:
            \"\"\"Halves the learning rate.\"\"\"
            every: int = option(2, "steps", ge=1)

            def factor(self, step, total_steps):
                return 0.5 ** (step // self.every)
        """,
    "conf/optimizer/sign.yaml": "# Sign descent.\n_target_: my_package.sign.spec.Sign\n",
    "conf/schedule/halving.yaml": "# Halving.\n_target_: my_package.halving.spec.Halving\n",
}
RUN = ["recipe=asr", "allow=[my_package]", "optimizer=sign", "schedule=halving", "optimizer.decay=0.25"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_optimizer_and_a_schedule_of_another_package_step(tmp_path: Path, backend: str, backends: Backends) -> None:
    for name, text in FILES.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(text))
    done = backends[backend].run("tests.workers.own_optimizer", backend, *RUN, cwd=tmp_path)
    result = json.loads(done.stdout.splitlines()[-1])
    average, weight = np.zeros(3), np.zeros(3)
    for rate, gradient in ((0.125, [1, -2, 0.5]), (0.125, [-0.125, 0.25, -8]), (0.0625, [0, 4, 0])):
        average = 0.25 * average + gradient
        weight -= rate * np.sign(average)
    assert result == {"weight": [weight.tolist()], "average.weight": [average.tolist()], "step": [3]}

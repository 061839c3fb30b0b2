"""An optimizer and a schedule from a package outside the repository, named by ``allow=``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest

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
WORKER = """
import json, sys
from pathlib import Path
import numpy as np
from toolkit.config import build, schema, process
run = schema.check([*json.loads(sys.argv[2]), f"backend={sys.argv[1]}"], [Path("conf")])
process.prepare(run.backend)
gradients = [np.array([[1.0, -2.0, 0.5]]), np.array([[-0.125, 0.25, -8.0]]), np.array([[0.0, 4.0, 0.0]])]
rates = [run.optimizer.lr * run.schedule.factor(step, 3) for step in range(3)]
if run.backend == "torch":
    import torch
    from toolkit.optimizers.torch import get_state
    model = torch.nn.Linear(3, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    optimizer = build.build(run.optimizer, "torch", list(model.named_parameters()))
    for rate, gradient in zip(rates, gradients):
        model.weight.grad = torch.tensor(gradient, dtype=torch.float32)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
    weight, state = model.weight.detach().numpy(), get_state(optimizer, model)
else:
    import keras, tensorflow as tf
    from toolkit.layers.tf import Slot
    from toolkit.optimizers.tf import get_state
    slot = Slot("weight", keras.Variable(np.zeros([3, 1], "float32")), lambda a: a.T, lambda a: a.T)
    optimizer = build.build(run.optimizer, "tf", [slot])
    for rate, gradient in zip(rates, gradients):
        optimizer.learning_rate.assign(rate)
        optimizer.apply([tf.constant(gradient.T, tf.float32)], [slot.variable])
    weight, state = slot.variable.numpy().T, get_state(optimizer, [slot])
print(json.dumps({"weight": weight.tolist()} | {name: array.tolist() for name, array in state.items()}))
"""


@pytest.mark.parametrize("backend", ["torch", "tf"])
def test_an_optimizer_and_a_schedule_of_another_package_step(tmp_path: Path, backend: str) -> None:
    for name, text in FILES.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(text))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", WORKER, backend, json.dumps(RUN)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    average, weight = np.zeros(3), np.zeros(3)
    for rate, gradient in ((0.125, [1, -2, 0.5]), (0.125, [-0.125, 0.25, -8]), (0.0625, [0, 4, 0])):
        average = 0.25 * average + gradient
        weight -= rate * np.sign(average)
    assert result == {"weight": [weight.tolist()], "average.weight": [average.tolist()], "step": [3]}

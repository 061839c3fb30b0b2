"""What several test files share: a place in which a run is quick, for what it does is not the subject."""

import os
from pathlib import Path

import pytest

from tests.support.backend import Backends

ROOT = Path(__file__).parents[1]
# What a run does is not the subject here: sitecustomize puts this in the place of toolkit.runs.job, in every process.
STUB = """
import importlib.abc, importlib.machinery, sys

class Stub(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path, target=None):
        return importlib.machinery.ModuleSpec(name, self) if name == "toolkit.runs.job" else None

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        import fcntl, json, os, signal, time
        from pathlib import Path
        from toolkit.errors import DataError, Interrupted, RunError

        def execute(run, config, overrides):
            folder = Path(run.run_dir)
            folder.mkdir(parents=True, exist_ok=True)
            module.lock = open(folder / ".lock", "a+")
            try:
                fcntl.lockf(module.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise RunError("in use by another run") from None
            facts = {"pid": os.getpid(), "group": os.getpgrp(), "keras": os.environ.get("KERAS_BACKEND")}
            facts |= {"config": config, "overrides": overrides}
            (folder / "facts.json").write_text(json.dumps(facts))
            with open(folder / "begun", "a") as file:
                file.write(f"{os.environ.get('OMP_NUM_THREADS')}\\n")
            do = {
                1: lambda: (_ for _ in ()).throw(RunError("the loss is not finite")),
                2: lambda: (_ for _ in ()).throw(DataError(["a.wav: empty", "b.wav: cut off"], "the data is bad:")),
                3: lambda: 1 / 0,
                4: lambda: (_ for _ in ()).throw(Interrupted(15, "a run")),
                5: lambda: os.kill(os.getpid(), signal.SIGKILL),
                6: lambda: sys.exit(7),
            }.get(run.seed)
            if do:
                do()
            if run.seed == 9:  # a run that takes its time, and counts what asks it to stop
                asked = []
                for signum in (signal.SIGTERM, signal.SIGINT):
                    signal.signal(signum, lambda s, f: asked.append(s))
                (folder / "waiting").touch()
                for _ in range(300):
                    time.sleep(0.1)
                    if asked:
                        break
                time.sleep(0.3)
                (folder / "asked").write_text(json.dumps(asked))
                raise Interrupted(asked[0])
            error = abs(run.optimizer.lr - 0.01) + run.seed / 1000  # as if this learning rate were the best
            row = {"split": "validation", "loss": 1.0}
            rows = [row | {"step": 10 * n, "epoch": n, "cer": error / n} for n in (1, 2, 3)]
            (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\\n" for row in rows))
            if run.optimizer.lr > 1:  # hopeless, and slow to come to an end
                asked = []
                signal.signal(signal.SIGTERM, lambda s, f: asked.append(s))
                for _ in range(100):
                    time.sleep(0.1)
                    if asked:
                        raise Interrupted(15)
            metrics = {"validation": {"cer": error, "loss": 1.0}, "test": {"cer": 2 * error}}
            results = {"metrics": metrics, "examples_per_second": 1 / run.optimizer.lr, "parameters": 7}
            (folder / "results.json").write_text(json.dumps(results))
            return 0

        module.execute = execute

sys.meta_path.insert(0, Stub())
"""


@pytest.fixture(scope="session")
def backends(tmp_path_factory):
    """Both frameworks, each imported once; see tests/support/backend.py."""
    with Backends(tmp_path_factory.mktemp("backends")) as started:
        yield started


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty folder to work in, and the stub."""
    stub = tmp_path / "stub"
    stub.mkdir()
    (stub / "sitecustomize.py").write_text(STUB)
    monkeypatch.setenv("PYTHONPATH", f"{stub}{os.pathsep}{ROOT}")
    work = tmp_path / "a folder"
    work.mkdir()
    monkeypatch.chdir(work)
    return work

"""Who may import whom (docs/architecture.md): no file of the wall is listed here, they are found."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from toolkit.config import build

ROOT = Path(build.__file__).parents[2]
FILES = sorted((ROOT / "toolkit").rglob("*.py"))
# where a package's module has another name
MODULES = {"hydra-core": "hydra", "pyyaml": "yaml", "pillow": "PIL", "protobuf": "google"}
HYDRA = {"cli/run.py", "config/build.py", "config/source.py", "config/compose.py"}
FRAMEWORK = {
    "torch": {"torch", "torchaudio", "torchvision", "lightning", "transformers"},
    "tf": {"tensorflow", "tensorflow_text", "keras", "keras_hub"},
}


def side(parts):
    """Which side of the wall a module is on, by the last part of its name."""
    return parts[-1] if parts[-1] in FRAMEWORK else "neutral"


def imported(file):
    """``(line, dotted name)`` of everything that a file imports, wherever in it."""
    package = file.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*above, *([node.module] if node.module else [])))
            # ``from package import torch`` names a module, too
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def declared(*extras):
    """The modules of the packages that the base depends on, and of some extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    names = [re.match(r"[\w-]+", line)[0] for line in wanted]
    return {MODULES.get(name, name) for name in names}


def breaches(file):
    """What a file may not import, a line each."""
    here = side(file.with_suffix("").parts)
    inside = file.relative_to(ROOT / "toolkit").as_posix()
    libraries = declared(*(("sweep", "ray") if inside.startswith("sweeps/") else ())) | set(sys.stdlib_module_names)
    for line, name in imported(file):
        top = name.split(".")[0]
        if top == "toolkit":
            # the module itself, or a thing from it
            sides = {side(name.split(".")), side(name.split(".")[:-1])} - {"neutral"}
            fine = sides <= {here} if here != "neutral" else not sides
        elif top == "hydra":
            fine = inside in HYDRA
        else:
            fine = top in libraries or top in FRAMEWORK.get(here, ())
        if not fine:
            yield f"{inside}:{line}: {name}"


def test_the_scan_sees_the_files():
    sides = [side(file.with_suffix("").parts) for file in FILES]
    assert {"neutral", "torch", "tf"} == set(sides)
    assert len(FILES) > 20


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_file_imports_only_what_it_may(file):
    assert list(breaches(file)) == []


@pytest.mark.parametrize(
    "name, line",
    [
        ("toolkit/thing.py", "import torch"),
        ("toolkit/thing.py", "def f():\n    from tensorflow import keras"),
        ("toolkit/thing.py", "from toolkit.training import torch"),
        ("toolkit/thing.py", "import pandas"),
        ("toolkit/thing.py", "from hydra.utils import instantiate"),
        ("toolkit/models/x/spec.py", "from . import tf"),
        ("toolkit/models/x/spec.py", "from .torch import Thing"),
        ("toolkit/models/x/torch.py", "import tensorflow as tf"),
        ("toolkit/models/x/torch.py", "from .tf import Thing"),
        ("toolkit/models/x/torch.py", "from ...layers import tf"),
        ("toolkit/models/x/tf.py", "import torch.nn"),
        ("toolkit/models/x/tf.py", "from toolkit.layers.torch import get_weights"),
    ],
)
def test_the_scan_finds_a_breach(tmp_path, monkeypatch, name, line):
    file = tmp_path / name
    file.parent.mkdir(parents=True)
    file.write_text(line)
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    assert len(list(breaches(file))) == 1
    file.write_text("import numpy\nfrom toolkit.layers import spec\nfrom . import spec as other\n")
    assert list(breaches(file)) == []


def python(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("backend", sorted(build.FOREIGN))
def test_a_process_of_one_backend_cannot_import_the_other(backend):
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in FILES]
    mine = [name for name in names if side(name.split(".")) in (backend, "neutral")]
    python(f"""
import importlib, importlib.util, sys
from toolkit.config import build
build.isolate({backend!r})
foreign = {sorted(build.FOREIGN[backend])!r}
assert [name for name in foreign if importlib.util.find_spec(name)] == []
for name in {mine!r}:
    importlib.import_module(name)
assert {build.FRAMEWORKS[backend][0]!r} in sys.modules
assert [name for name in foreign if name in sys.modules] == []
try:
    importlib.import_module(foreign[-1])
except ModuleNotFoundError:
    pass
else:
    raise AssertionError("not hidden")
""")


def test_neutral_modules_import_no_framework_and_nothing_heavy():
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in FILES]
    neutral = [name for name in names if side(name.split(".")) == "neutral"]
    python(f"""
import importlib, sys
for name in {neutral!r}:
    importlib.import_module(name)
heavy = {sorted(set().union(*build.FOREIGN.values(), ("datasets", "pyarrow", "soundfile", "av", "jiwer", "rich")))!r}
found = [name for name in heavy if name in sys.modules]
assert not found, found
""")

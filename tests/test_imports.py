"""Who may import whom (docs/architecture.md): no file of the wall is listed here, they are found."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from toolkit.config import build, process

ROOT = Path(build.__file__).parents[2]
FILES = sorted((ROOT / "toolkit").rglob("*.py"))
# where a package's module has another name
MODULES = {
    "hydra-core": "hydra",
    "pyyaml": "yaml",
    "pillow": "PIL",
    "protobuf": "google",
    "pillow-heif": "pillow_heif",
    "whisper-normalizer": "whisper_normalizer",
}
HYDRA = {"cli/run.py", "config/source.py", "config/compose.py", "config/overrides.py"}
FRAMEWORK = {
    "torch": {"torch", "torchaudio", "torchvision", "lightning", "transformers"},
    "tf": {"tensorflow", "tensorflow_text", "keras", "keras_hub"},
}


def side(parts):
    """Which side of the wall a module is on, by the last part of its name."""
    return parts[-1] if parts and parts[-1] in FRAMEWORK else "neutral"


def imported(file):
    """``(line, dotted name)`` of everything that a file imports, wherever in it, but for type checkers alone."""
    package = file.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in at_run_time(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*above, *([node.module] if node.module else [])))
            # ``from package import torch`` names a module, too
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


EXTRAS = {
    "sweeps/": ("sweep", "ray"),
    "data/normalize.py": ("text",),
    "data/media/image.py": ("heic",),
}  # place -> extras that it may import


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
    extras = [extra for place, names in EXTRAS.items() if inside.startswith(place) for extra in names]
    libraries = declared(*extras) | set(sys.stdlib_module_names)
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


# --- layers ----------------------------------------------------------------------------------------------------------

# a module imports modules of its own rank and of lower ones; the longest name that fits gives its rank
RANKS = {
    "toolkit": 0,
    "toolkit.errors": 0,
    **dict.fromkeys(("toolkit.config", "toolkit.config.spec", "toolkit.config.contracts", "toolkit.config.build"), 1),
    **{f"toolkit.{name}": 2 for name in ("layers", "metrics", "decoding", "data")},
    **{
        f"toolkit.{name}": 3
        for name in ("features", "tokenizers", "datasets", "encoders", "models", "tasks", "optimizers", "schedules")
    },
    "toolkit.training": 4,
    **{
        f"toolkit.{name}": 5
        for name in ("runs", "config.source", "config.overrides", "config.compose", "config.schema")
    },
    **{f"toolkit.{name}": 6 for name in ("inference", "certify", "sweeps", "compare", "reports")},
    **{f"toolkit.{name}": 7 for name in ("cli", "run", "__main__")},
}
ROOM = {"toolkit.config": ("toolkit.config", "toolkit.errors")}  # imports nothing else of the toolkit


def inside(name, module):
    return f"{name}.".startswith(f"{module}.")


def rank(name):
    """The rank of a module, or of the module that a thing is imported from."""
    return RANKS[max((module for module in RANKS if inside(name, module)), key=len)]


def at_run_time(tree):
    """All nodes but those under ``if TYPE_CHECKING:``."""
    yield tree
    skipped = isinstance(tree, ast.If) and ast.unparse(tree.test) == "TYPE_CHECKING"
    for node in tree.orelse if skipped else ast.iter_child_nodes(tree):
        yield from at_run_time(node)


def upward(file):
    """``(file, package)`` of each import of the toolkit that points up, and of each that leaves a closed room."""
    if file == ROOT / "toolkit" / "__init__.py":  # the public API, which every module may import and which imports all
        return
    where = file.relative_to(ROOT).with_suffix("")
    own = ".".join(where.parts).removesuffix(".__init__")
    room = next((allowed for module, allowed in ROOM.items() if inside(own, module)), ("toolkit",))
    for _, name in imported(file):
        if inside(name, "toolkit") and (rank(name) > rank(own) or not any(inside(name, m) for m in room)):
            yield file.relative_to(ROOT / "toolkit").as_posix(), ".".join(name.split(".")[:2])


def test_every_package_has_a_rank():
    packages = {".".join(file.relative_to(ROOT).parent.parts) for file in FILES} - {"toolkit"}
    files = {f"toolkit.{file.stem}" for file in FILES if file.parent.name == "toolkit"} - {"toolkit.__init__"}
    ranked = [module for module in RANKS if module != "toolkit"]
    assert [name for name in packages | files if not any(inside(name, module) for module in ranked)] == []


def test_imports_point_down():
    assert {breach for file in FILES for breach in upward(file)} == set()


@pytest.mark.parametrize(
    "name, line, package",
    [
        ("toolkit/data/thing.py", "from toolkit.training.spec import Trainer", "toolkit.training"),
        ("toolkit/data/thing.py", "from toolkit.config import schema", "toolkit.config"),
        ("toolkit/models/x/spec.py", "def f():\n    from ...runs import checkpoint", "toolkit.runs"),
        ("toolkit/training/loop.py", "from toolkit.config.schema import Run", "toolkit.config"),
        ("toolkit/config/schema.py", "from toolkit.training.spec import STRATEGIES", "toolkit.training"),
        ("toolkit/config/schema.py", "from toolkit.layers import spec", "toolkit.layers"),
        ("toolkit/runs/job.py", "from toolkit.cli.guard import guarded", "toolkit.cli"),
        ("toolkit/sweeps/page.py", "import toolkit.run", "toolkit.run"),
    ],
)
def test_an_import_that_points_up_is_found(tmp_path, monkeypatch, name, line, package):
    file = tmp_path / name
    file.parent.mkdir(parents=True)
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    file.write_text(line)
    assert [found for _, found in upward(file)] == [package]
    file.write_text("if TYPE_CHECKING:\n    " + line.replace("\n", "\n    "))
    assert list(upward(file)) == []
    file.write_text("from toolkit.config.spec import spec\nfrom toolkit.errors import UserError\nimport numpy")
    assert list(upward(file)) == []


# --- lookups by name -------------------------------------------------------------------------------------------------

FOREIGN_OBJECTS = {  # attributes of dataclass fields, and of objects that are not the toolkit's
    ("config/compose.py", "'shuffle'"),
    ("config/schema.py", "'__name__'"),
    ("config/schema.py", "f.name"),
    ("config/schema.py", "group"),
    ("config/spec.py", "field.name"),
    ("data/columns/column.py", "field.name"),
    ("data/loaders/torch.py", "'_workers'"),
    ("data/loaders/torch.py", "'pthread_sigmask'"),
    ("data/media/image.py", "'is_animated'"),
    ("data/sources/fetch.py", "'reason'"),
    ("data/sources/tfrecord.py", "kind"),
    ("data/stream.py", "f.name"),
    ("layers/tf.py", "'use_bias'"),
    ("runs/checkpoint.py", "'posix_fadvise'"),
}


def calls(file):
    """``(file, attribute)`` of each ``getattr`` and ``hasattr``, ``(file, "import_module")`` of each import by name."""
    where = file.relative_to(ROOT / "toolkit").as_posix()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func).rpartition(".")[2]
            if name in ("getattr", "hasattr"):
                yield where, ast.unparse(node.args[1])
            elif name in ("import_module", "__import__"):
                yield where, "import_module"


def test_attributes_of_our_own_objects_are_not_looked_up_by_name():
    found = {call for file in FILES for call in calls(file) if call[1] != "import_module"}
    assert found == FOREIGN_OBJECTS


def test_modules_are_imported_by_name_in_one_place():
    found = {call for file in FILES for call in calls(file) if call[1] == "import_module"}
    assert found == {("config/build.py", "import_module")}


def test_the_scan_finds_a_lookup(tmp_path, monkeypatch):
    file = tmp_path / "toolkit" / "thing.py"
    file.parent.mkdir()
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    file.write_text("import importlib\nhasattr(model, 'x')\ndef f(a):\n    return getattr(a.b, name, None)\n")
    assert list(calls(file)) == [("thing.py", "'x'"), ("thing.py", "name")]
    file.write_text("importlib.import_module(a)\nimport_module('b')\n__import__('c')\n")
    assert list(calls(file)) == [("thing.py", "import_module")] * 3


# --- processes -------------------------------------------------------------------------------------------------------


def python(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("backend", sorted(process.FOREIGN))
def test_a_process_of_one_backend_cannot_import_the_other(backend, backends):
    """Nor does any module of its own bring it in; the server has imported most of them with nothing else."""
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in FILES]
    mine = [name for name in names if side(name.split(".")) in (backend, "neutral")]
    found = json.loads(backends[backend].run("tests.workers.importing", backend, *mine).stdout)
    assert found == {"imported": [], "findable": [], "importable": []}


def test_neutral_modules_import_no_framework_and_nothing_heavy():
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in FILES]
    neutral = [name for name in names if side(name.split(".")) == "neutral"]
    python(f"""
import importlib, sys
for name in {neutral!r}:
    importlib.import_module(name)
heavy = {sorted(set().union(*process.FOREIGN.values(), ("datasets", "pyarrow", "soundfile", "av", "jiwer", "rich")))!r}
found = [name for name in heavy if name in sys.modules]
assert not found, found
""")

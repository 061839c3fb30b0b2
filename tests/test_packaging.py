"""The wheel works by itself: away from the checkout, in an empty folder."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.support import tiny
from tests.support.made import tone_folder

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = out.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The python of a new environment with the wheel in it; the dependencies come from the one that runs the tests."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder)
    python = folder / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(command, check=True, capture_output=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    # a path in a .pth file does not bring that folder's own .pth files along: no editable installation
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return python


def python(executable, folder, *arguments):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_holds_the_package_with_its_configs_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {Path(name).parts[0] for name in names if ".dist-info" not in name} == {"toolkit"}
    for folder, inside in (("conf", "_conf"), ("recipes", "_recipes")):
        wanted = {f"toolkit/{inside}/{file.relative_to(ROOT / folder)}" for file in (ROOT / folder).rglob("*.yaml")}
        assert wanted and wanted <= set(names)
    code = {str(file.relative_to(ROOT)) for file in (ROOT / "toolkit").rglob("*") if file.suffix in (".py", ".tsv")}
    assert code <= set(names)


def test_the_command_line_works_from_an_empty_folder(installed, tmp_path):
    where = python(installed, tmp_path, "-c", "import toolkit; print(toolkit.__file__)").strip()
    assert Path(where).is_relative_to(installed.parents[1])
    assert python(installed, tmp_path, "-m", "toolkit.run", "--help") == python(
        sys.executable, tmp_path, "-m", "toolkit.run"
    )
    shown = python(installed, tmp_path, "-m", "toolkit.run", "recipe=asr", "--cfg", "job")
    assert shown == python(sys.executable, tmp_path, "-m", "toolkit.run", "recipe=asr", "--cfg", "job")
    code = "from toolkit.config import paths as r; print(r.CONF, r.RECIPES)"
    assert python(installed, tmp_path, "-c", code).split() == [
        str(Path(where).parent / name) for name in ("_conf", "_recipes")
    ]


@pytest.mark.parametrize("backend", ["torch", pytest.param("tf", marks=pytest.mark.long)])
def test_a_recipe_runs_from_an_empty_folder(installed, tmp_path, monkeypatch, backend):
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    data = tone_folder(tmp_path / "data", train=12, validation=4, test=4)
    empty = tmp_path / "empty"
    empty.mkdir()
    own = ["recipe=asr", f"backend={backend}", "dataset=audio_folder", f"dataset.path={data}"]
    python(installed, empty, "-m", "toolkit.run", *own, *tiny.components(*own), *tiny.SHORT)
    (results,) = empty.glob(f"outputs/asr/{backend}/*/results.json")
    assert json.loads(results.read_text())["metrics"]["test"]["cer"] >= 0

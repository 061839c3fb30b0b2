"""The certificate: twins that are alike pass, and each kind of mismatch is named where it first shows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.certify.mismatches import IN_FLOAT32, NAMES, PLACES, recorded_in_float32
from tests.support import made, tiny
from tests.support.backend import BACKENDS, ROOT, Backends, Job
from toolkit.certify import certificate, gates
from toolkit.certify.certificate import FLOORS, Certificate, judge_float32
from toolkit.certify.compare import Comparison
from toolkit.certify.stream import Reader
from toolkit.certify.worker import TRAININGS
from toolkit.cli.certify import parse, run
from toolkit.cli.guard import guarded
from toolkit.config import process
from toolkit.config import schema as config
from toolkit.errors import ConfigError
from toolkit.runs import job
from toolkit.runs.folder import RunFolder

STEPS = 4
# domain -> recipe, with what of it
RECIPES = {
    "images": ["recipe=image_classification", "model=cnn"],
    "speech": ["recipe=asr", "model=bilstm_ctc"],
    "translation": ["recipe=translation", "model=transformer"],
}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOOLKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def arguments(domain: str, data: Path, *more: str) -> list[str]:
    """A small recipe of a domain on made data."""
    option, make = made.FOLDERS[domain]
    if not data.exists():
        make(data)
    fixed = [*RECIPES[domain], f"dataset={option}", f"dataset.path={data}", *more]
    return [*fixed, *tiny.components(*fixed), *[word for word in tiny.SHORT if "precision" not in word]]


def command(module: str, *words: object, code: int = 0, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, words)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "2"} | environment,
        timeout=550,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def certify(backends: Backends, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """``python -m toolkit.certify`` in this process, which is neutral; its trainings are forked from the servers."""

    def training(command: list[str], env: dict[str, str], stdout: Any, stderr: Any) -> Job:
        module, work, name = command[2:]
        return backends[TRAININGS[name].backend].start(module, work, name, cwd=ROOT, env=env, output=Path(stdout.name))

    def certify(*words: str) -> tuple[int, str]:
        code = guarded(lambda: run(words))
        found = capsys.readouterr()
        return code, found.out + found.err

    monkeypatch.setattr(certificate, "subprocess", SimpleNamespace(Popen=training))
    monkeypatch.setattr(process, "hide", lambda names: None)  # it would hide them from the other tests too
    return certify


# --- twins that are alike --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "domain, which",
    [
        ("images", "all"),
        pytest.param("speech", "semantics", marks=pytest.mark.long),
        pytest.param("translation", "semantics", marks=pytest.mark.long),
    ],
)
def test_the_twins_of_a_small_recipe_are_certified(domain: str, which: str, certify: Any, tmp_path: Path) -> None:
    words = arguments(
        domain, tmp_path / "data", "trainer.accumulate=2", "trainer.ema_decay=0.9", "trainer.validate_steps=2"
    )
    folder = tmp_path / "out"
    code, said = certify(f"steps={STEPS}", "decode=4", f"gates={which}", *words, f"run_dir={folder}")
    assert code == 0, said
    found = json.loads((folder / "certificate.json").read_text())
    assert "the twins are certified" in said
    assert found["passed"] and found["first_place"] is None and found["steps"] == STEPS
    assert (
        list(found["gates"])
        == {
            "all": ["semantics", "float32", "relay", "decoding"],
            "semantics": ["semantics", "relay"],
        }[which]
    )
    relays = [
        f"float64, {first} to step {STEPS // 2}, then {then}" for first, then in (("torch", "tf"), ("tf", "torch"))
    ]
    assert list(found["relays"]) == relays
    for relay in found["relays"].values():
        assert [gap["step"] for gap in relay["largest"]["loss"]] == [3, 4]
        assert relay["largest"]["moment"] and relay["largest"]["weight"] and relay["largest"]["average"]
    first = {(gap["kind"], gap["name"]) for gap in found["float64"]["first_step"]}
    assert {kind for kind, _ in first} == {"intermediate", "loss", "gradient"}
    later = {"learning_rate", "loss", "gradient_norm", "moment", "weight", "average"}
    assert set(found["float64"]["largest"]) >= later
    assert all(len(found["float64"]["largest"][kind]) == STEPS + (kind == "loss") for kind in later)
    assert len(found["curves"]["loss"]["torch64"]) == STEPS
    if which == "all":
        for curve in ("relay_drift", "relay_floor"):
            assert {name: len(gaps) for name, gaps in found["curves"][curve].items()} == {
                "torch-tf32": STEPS // 2,
                "tf-torch32": STEPS // 2,
            }
        assert list(found["curves"]["floor"]) == list(FLOORS)
        assert found["float64"]["largest"]["statistic"]
        assert found["decoding"]["identical"] == found["decoding"]["examples"] == 4
    page = (folder / "certificate.html").read_text()
    assert page.count("data:image/png;base64,") >= 3 and "certified" in page
    assert not list(folder.glob(".work-*"))


# --- twins that are not ----------------------------------------------------------------------------------------------


# Only with -m long. What the others find is in each kind of place but the learning rate, which
# test_the_command_ends_at_the_first_step_that_differs finds.
LATER = ("schedule", "clipping", "decay")


@pytest.fixture(scope="module")
def recorded(backends: Backends, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """One recording of torch and one of TensorFlow for each mismatch that a test of this session looks at."""
    functions = [item for item in request.session.items if isinstance(item, pytest.Function)]
    mine = [item for item in functions if item.originalname == "test_a_mismatch_is_named_at_its_first_place"]
    names = [item.callspec.params["name"] for item in mine]
    base = tmp_path_factory.mktemp("mismatches")
    words = arguments("images", base / "data", "trainer.accumulate=2", "trainer.clip_norm=0.5")
    run = config.check([*words, f"run_dir={base / 'run'}"])
    folder, work = RunFolder(base / "run"), base / "work"
    work.mkdir()
    try:
        certificate.pack(run, config.plain(run), job.prepare(run, folder), folder.path, work, STEPS, 0)
    finally:
        folder.close()
    for what in (names, ["float32"]):
        started = [backends[b].start("tests.certify.mismatches", work, b, *what, cwd=ROOT) for b in BACKENDS]
        for training in started:
            assert training.wait(550) == 0, training.stderr
    return work


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.long] * (n in LATER)) for n in NAMES])
def test_a_mismatch_is_named_at_its_first_place(name: str, recorded: Path) -> None:
    found, expected = Comparison(gates.FLOAT64), PLACES[NAMES[name]]
    torch, tf = (Reader(recorded / part, keep=True) for part in ("torch64", name))
    certificate.compare(found, STEPS, torch, tf, Certificate(STEPS))
    assert not found.stopped
    assert str(found.first or "").startswith(expected) and bool(found.first) == bool(expected), str(found.first)


@pytest.mark.parametrize("name, found", IN_FLOAT32.items())
def test_float32_finds_a_mismatch_that_changes_the_loss(name: str, found: bool, recorded: Path) -> None:
    """Both by its fixed limits and by the floor: a mismatch is in the moved courses too and does not raise it."""
    made = Certificate(STEPS)
    for training in recorded_in_float32("torch") + recorded_in_float32("tf"):
        folder = training if TRAININGS[training].backend == "torch" else f"{name}.{training}"
        certificate.losses(made, training, Reader(recorded / folder, keep=True), 0)
    made.curves["torch64"] = made.curves["threads"] = made.curves["torch32"]
    judge_float32(made)
    assert bool(made.places["float32"]) == found
    assert (made.drift[-1] > made.allowed_drift) == found, (made.drift, made.allowed_drift)


def test_a_mismatch_after_a_change_of_framework_fails_the_certificate(
    certify: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(certificate, "WORKER", "tests.certify.mismatches")
    monkeypatch.setenv("MISMATCH", "moments")
    words = arguments("images", tmp_path / "data")
    code, said = certify(f"steps={STEPS}", "gates=semantics", *words, f"run_dir={tmp_path / 'out'}")
    check_failed(tmp_path / "out", code, said, "float64, torch to step 2, then tf: step 4, loss: ")


def test_the_command_ends_at_the_first_step_that_differs(
    certify: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(certificate, "WORKER", "tests.certify.mismatches")
    monkeypatch.setenv("MISMATCH", "schedule")
    words = ["gates=semantics", *arguments("images", tmp_path / "data"), f"run_dir={tmp_path / 'out'}"]
    code, said = certify(f"steps={STEPS}", *words)
    check_failed(tmp_path / "out", code, said, "step 1, learning rate: ")


@pytest.mark.long
def test_with_its_own_processes_the_command_exits_with_1(tmp_path: Path) -> None:
    words = ["gates=semantics", *arguments("images", tmp_path / "data"), f"run_dir={tmp_path / 'out'}"]
    said = command("tests.certify.command", f"steps={STEPS}", *words, code=1, MISMATCH="schedule")
    check_failed(tmp_path / "out", 1, said, "step 1, learning rate: ")


def check_failed(folder: Path, code: int, said: str, place: str) -> None:
    """A certificate was refused, for a gap that begins with ``place``."""
    found = json.loads((folder / "certificate.json").read_text())
    assert code == 1 and not found["passed"] and found["first_place"].startswith(place), found["first_place"]
    assert f"the twins first differ at {found['first_place']}" in said and "FAILED" in said
    assert "not certified" in (folder / "certificate.html").read_text()


@pytest.mark.parametrize(
    "words, lines",
    [
        (["steps=0"], ["steps: found '0', expected a whole number, at least 1"]),
        (["gates=some", "decode=x"], ["gates: found 'some'", "decode: found 'x'"]),
        (["--multirun"], ["--multirun: unknown flag"]),
        (
            ["recipe=image_classification", "backend=tf", "trainer.precision=bf16", "model.native_dropout=true"],
            ["backend: given", "trainer.precision: found bf16", "model.native_dropout: found true"],
        ),
        (["recipe=image_classification", "model=cnnn"], ["model"]),
    ],
)
def test_bad_arguments_are_all_named(words: list[str], lines: list[str]) -> None:
    said = command("toolkit", "certify", *words, code=2)
    assert all(line in said for line in lines), said


def test_arguments() -> None:
    assert parse(["steps=7", "recipe=x"]) == ({"steps": 7, "decode": 64}, False, ["recipe=x"], [])
    assert parse(["--config-dir", "a", "--config-dir=b"])[3] == [Path("a"), Path("b")]
    with pytest.raises(ConfigError):
        parse(["decode=-1"])

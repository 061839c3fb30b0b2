"""The certificate: twins that are alike pass, and each kind of mismatch is named where it first shows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.certify.mismatches import IN_FLOAT32, NAMES, PLACES, recorded_in_float32
from tests.support import made, tiny
from tests.support.backend import BACKENDS, ROOT, Backends, Job
from toolkit.certify import certificate, gates
from toolkit.certify.certificate import FLOORS, RELAY_FLOORS, Certificate, judge_float32, judge_relays
from toolkit.certify.compare import Comparison, apart, drift
from toolkit.certify.stream import Reader, Stopped, Writer
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
        ("translation", "semantics"),
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


@pytest.fixture(scope="module")
def recorded(backends: Backends, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One recording of torch and one of each mismatch of TensorFlow."""
    base = tmp_path_factory.mktemp("mismatches")
    words = arguments("images", base / "data", "trainer.accumulate=2", "trainer.clip_norm=0.5")
    run = config.check([*words, f"run_dir={base / 'run'}"])
    folder, work = RunFolder(base / "run"), base / "work"
    work.mkdir()
    try:
        certificate.pack(run, config.plain(run), job.prepare(run, folder), folder.path, work, STEPS, 0)
    finally:
        folder.close()
    for precision in ([], ["float32"]):
        started = [backends[b].start("tests.certify.mismatches", work, b, *precision, cwd=ROOT) for b in BACKENDS]
        for training in started:
            assert training.wait(550) == 0, training.stderr
    return work


@pytest.mark.parametrize("name", NAMES)
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


# --- the comparison itself -------------------------------------------------------------------------------------------


def first_step() -> dict[str, np.ndarray]:
    random = np.random.Generator(np.random.Philox(key=3))
    return {name: random.standard_normal((3, 4)) for name in ("intermediate/a", "loss", "gradient/a.w", "gradient/a.b")}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_number_that_is_not_finite_fails_even_on_both_sides(value: float) -> None:
    arrays = first_step()
    arrays["gradient/a.w"][1, 1] = value
    found = Comparison(1e-8)
    found.add(0, arrays, arrays)
    assert str(found.first) == "step 1, gradient a.w: not finite in torch"


@pytest.mark.parametrize("name", list(first_step()))
def test_the_first_gap_is_kept(name: str) -> None:
    found, other = Comparison(1e-8), first_step()
    for later in list(other)[list(other).index(name) :]:
        other[later] = other[later] * (1 + 3e-8)
    found.add(0, first_step(), other)
    assert found.first and f"{found.first.kind}/{found.first.name}".strip("/") == name
    assert found.first.gap == pytest.approx(3e-8, rel=1e-3)


def test_what_one_of_them_lacks_or_has_otherwise_fails() -> None:
    for change in ({"loss": np.zeros((3, 4), np.float32)}, {"loss": np.zeros(2)}, {"gradient/new": np.zeros(1)}):
        found = Comparison(1.0)
        found.add(0, first_step(), first_step() | change)
        assert found.first
    assert apart("intermediate", np.array([1, 2]), np.array([1, 3]))[0] == np.inf
    assert apart("weight", np.zeros(2), np.array([0, 1e-300]))[0] == np.inf
    assert apart("weight", np.zeros(2), np.zeros(2)) == (0.0, "")


def test_a_gradient_of_nothing_but_rounding_is_listed_and_not_judged() -> None:
    found, torch, tf = Comparison(1e-8), first_step(), first_step()
    torch["gradient/a.b"], tf["gradient/a.b"] = np.full(3, 1e-17), np.full(3, -1e-17)
    found.add(0, torch, tf)
    later = {"moment/exp_avg.a.b": np.full(3, 1e-18), "weight/a.b": np.full(3, 1e-12)}
    found.add(1, later, {name: -array for name, array in later.items()})
    assert found.unjudged == ["a.b"] and found.first is None
    tf["gradient/a.b"] = np.full(3, 1e-9)  # where one of them has a gradient, both must
    found = Comparison(1e-8)
    found.add(0, torch, tf)
    assert found.unjudged == [] and str(found.first).startswith("step 1, gradient a.b: ")


def judged(
    tf: list[float], threads: list[float], wide: list[float], moved: list[list[float]] | None = None
) -> Certificate:
    """A certificate from curves of losses.

    Args:
        moved: both of tf from moved weights; as ``tf`` if None.
    """
    itself = dict.fromkeys(FLOORS, threads) | {"torch64": wide}
    itself |= dict(zip(("tf-moved1", "tf-moved2"), moved or [tf, tf], strict=True))
    found = Certificate(len(tf), curves={"torch32": [1.0] * len(tf), "tf32": tf, **itself})
    judge_float32(found)
    return found


def test_float32_is_held_to_fixed_limits_and_then_to_the_floor() -> None:
    calm, wild = [1.0] * 5, [1.0] * 4 + [1.1]
    assert judged([1 + 9e-7, 1 + 9e-6, 1 + 9e-6, 1.0, 1.29], calm, wild).passed
    for step, value in ((1, 1 + 2e-6), (2, 1 + 2e-5), (3, 1 + 2e-5), (5, 1.31)):
        curve = list(calm)
        curve[step - 1] = value
        assert str(judged(curve, wild, calm).places["float32"]).startswith(f"step {step}, loss: ")
    assert str(judged([*calm[:4], 1 + 1e-6], calm, calm).places["float32"]).startswith("step 5, loss: ")
    assert judged([*calm[:4], 1 + 3e-7], calm, calm).passed  # the spacing of float32 is the least floor
    assert not judged([*calm[:4], np.nan], wild, calm).passed
    assert drift([0.0, 1.0], [0.0, 0.0]) == [0.0, np.inf]


def test_a_jump_of_one_course_of_either_framework_is_no_mismatch() -> None:
    """One course in seven of recipe=asr departs by 2e-5 at once."""
    calm, jump = [1.0] * 5, [1.0] * 4 + [1 + 2e-5]
    assert judged(jump, calm, calm, [calm, calm]).passed
    assert judged(jump, calm, calm, [jump, calm]).passed
    in_torch = Certificate(5, curves=dict.fromkeys(FLOORS, calm) | {"torch32": jump, "tf32": calm})
    judge_float32(in_torch)
    assert in_torch.passed
    # a mismatch is in all courses of a framework
    assert str(judged(jump, calm, calm).places["float32"]).startswith("step 5, loss: ")


@pytest.mark.parametrize("name", FLOORS)
def test_a_floor_that_is_not_finite_lets_nothing_pass_that_is_not_finite(name: str) -> None:
    calm, lost = [1.0] * 5, [1.0] * 4 + [np.nan]
    found = Certificate(5, curves=dict.fromkeys(FLOORS, calm) | {name: lost, "torch32": calm, "tf32": lost})
    judge_float32(found)
    assert "not finite" in str(found.places["float32"])


def test_the_floor_of_a_relay_includes_the_same_change_from_moved_weights() -> None:
    calm = [1.0] * 10
    jump = [1.0, 1.0, *[1 + 2e-5] * 3]
    for relay, moved in RELAY_FLOORS.items():
        for course, passes in ((calm[5:], True), (jump, False), (calm[5:8], False)):
            found = judged(calm, calm, calm)
            found.curves |= {"torch-tf32": calm[5:], "tf-torch32": calm[5:]} | {relay: jump, moved: course}
            judge_relays(found)
            assert (found.places["relay"] is None) == passes, (relay, found.places["relay"])


def test_a_change_of_framework_is_held_to_a_forward_pass_and_then_to_the_floor() -> None:
    calm = [1.0] * 10
    for relay in ("torch-tf32", "tf-torch32"):
        for step, value, passes in (
            (6, 1 + 9e-7, True),
            (6, 1 + 2e-6, False),
            (7, 1 + 3e-7, True),
            (8, 1 + 1e-6, False),
        ):
            curve = [value if number == step else 1.0 for number in range(6, 11)]
            found = judged(calm, calm, calm)
            found.curves |= {"torch-tf32": calm[5:], "tf-torch32": calm[5:]} | {relay: curve}
            judge_relays(found)
            first = relay.partition("-")[0]
            place = found.places["relay"] or ""
            assert place.startswith("" if passes else f"float32, {first} to step 5, then ") and bool(place) != passes
            assert passes or f": step {step}, loss: " in place
    found.curves["tf-torch32"] = calm[5:8]  # it stopped
    judge_relays(found)
    assert "step 9, loss: not finite" in str(found.places["relay"])


class Named:
    ids = ("x", "y")

    def __len__(self) -> int:
        return len(self.ids)


@pytest.mark.parametrize("texts, place", [(["a", "b"], None), (["a", "c"], "test example y: torch 'b', tf 'c'")])
def test_texts_that_differ_are_named(texts: list[str], place: str | None, tmp_path: Path) -> None:
    for name, hypotheses in (("torch32", ["a", "b"]), ("tf32", texts)):
        rows = {str(i): {"hypothesis": text, "score": 0.0} for i, text in enumerate(hypotheses)}
        (tmp_path / f"decoded-{name}.json").write_text(json.dumps(rows))
    found, data = Certificate(4), SimpleNamespace(split=Named())
    certificate._decoding(found, SimpleNamespace(data={"test": data}), tmp_path)  # type: ignore[arg-type]
    assert found.places["decoding"] == place and found.decoding["identical"] == (1 if place else 2)


def test_a_recording_keeps_its_order_waits_for_its_reader_and_says_why_it_ends(tmp_path: Path) -> None:
    writer, arrays = Writer(tmp_path, ahead=None), {"z": np.ones(2), "a/b.c": np.array(1.5)}
    for step in range(3):
        writer.write(step, arrays)
    writer.stop("step 3: enough")
    reader = Reader(tmp_path)
    assert [list(reader.read(step)) for step in range(3)] == [["z", "a/b.c"]] * 3
    assert not list(tmp_path.glob("*.npz"))
    with pytest.raises(Stopped, match="step 3: enough"):
        reader.read(3)

"""The comparison that certifies: what is compared, where the first gap is, and which floor it is held to."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from toolkit.certify import certificate
from toolkit.certify.certificate import FLOORS, RELAY_FLOORS, Certificate, judge_float32, judge_relays
from toolkit.certify.compare import Comparison, apart, drift
from toolkit.certify.stream import Reader, Stopped, Writer


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

"""Make a certificate: prepare the data once, train both twins in separate processes, and compare them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.certify import gates
from toolkit.certify.compare import Comparison, Gap, drift, figures
from toolkit.certify.stream import AHEAD, Arrays, Reader, Stopped
from toolkit.certify.worker import RELAYS, TRAININGS, batch_path
from toolkit.errors import RunError, room, writing
from toolkit.runs import job
from toolkit.runs.folder import RunFolder

if TYPE_CHECKING:
    from toolkit.config.schema import Run

WORKER = "toolkit.certify.worker"
AHEAD_OF_STEPS = 8  # batches that a loader may prefetch
DECODED_TOGETHER = 16  # examples
# training -> how it differs from the float32 training of its framework, or from the relay that it repeats
FLOORS = {
    "threads": "one thread and two",
    "torch64": "float32 and float64",
    "moved1": "weights moved by a rounding",
    "moved2": "weights moved by another rounding",
    "tf-moved1": "weights moved by a rounding",
    "tf-moved2": "weights moved by another rounding",
}
RELAY_FLOORS = {"torch-tf32": "torch-tf-moved", "tf-torch32": "tf-torch-moved"}


@dataclass
class Certificate:
    """Result of a certification.

    Args:
        steps: steps of each training.
        semantics: the float64 comparison.
        narrow: the float32 comparison of step 1, which is shown and not judged.
        curves: training -> its losses.
        rates: learning rates.
        ends: float64 training -> the figures of each step, and every array of the last step.
        relays: float64 training that resumes the other framework's checkpoint -> its comparison with that framework.
        drift: relative difference of the twins' float32 losses at each step.
        relay_drift: the same for the float32 trainings that change framework, from the step after the change.
        floor: of ``FLOORS`` -> the drift of its losses from those of its framework's float32 training.
        relay_floor: float32 relay -> the drift of the same relay from moved weights.
        decoding: number of texts, of equal texts, and so on; empty if there was nothing to decode.
        places: gate -> the first place beyond it, or None; a gate that was not tried is missing.
    """

    steps: int
    semantics: Comparison = field(default_factory=lambda: Comparison(gates.FLOAT64))
    narrow: Comparison = field(default_factory=lambda: Comparison(np.inf))
    curves: dict[str, list[float]] = field(default_factory=dict)
    rates: list[float] = field(default_factory=list)
    ends: dict[str, list[Arrays]] = field(default_factory=dict)
    relays: dict[str, Comparison] = field(default_factory=dict)
    drift: list[float] = field(default_factory=list)
    relay_drift: dict[str, list[float]] = field(default_factory=dict)
    floor: dict[str, list[float]] = field(default_factory=dict)
    relay_floor: dict[str, list[float]] = field(default_factory=dict)
    decoding: dict[str, Any] = field(default_factory=dict)
    places: dict[str, str | None] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return bool(self.places) and not any(self.places.values())

    @property
    def first_place(self) -> str | None:
        """First place where the twins differ, of the first gate that failed."""
        return next((place for place in self.places.values() if place), None)

    @property
    def half(self) -> int:
        """Step after which a relay changes framework; 0 if there are too few steps."""
        return self.steps // 2

    @property
    def allowed_drift(self) -> float:
        """Limit for the float32 losses from step 4 on."""
        return self._allowed(self.floor.values())

    def allowed_relay_drift(self, name: str) -> float:
        """Limit for the float32 losses of a relay, from the second step after the change on."""
        return self._allowed([*self.floor.values(), self.relay_floor.get(name, [])])

    @staticmethod
    def _allowed(floors: Iterable[Sequence[float]]) -> float:
        floor = max((max(values, default=0.0) for values in floors), default=0.0)
        return gates.FLOOR_MULTIPLE * max(floor, gates.FLOAT32_UNIT)


def certify(
    run: Run, config: Mapping[str, Any], folder: RunFolder, steps: int, decoded: int, semantics_only: bool
) -> Certificate:
    """Train both twins and compare them.

    Args:
        run: checked specs.
        config: the same as plain data.
        folder: gets the tokenizer and the state of the features.
        steps: steps of each training, at most those of the recipe.
        decoded: number of test examples to decode.
        semantics_only: try the semantics gate only.

    Raises:
        UserError: bad data, a full disk, or a process that failed.
    """
    parts = job.prepare(run, folder)
    steps = min(steps, parts.data["train"].steps(run.trainer))
    with tempfile.TemporaryDirectory(prefix=".work-", dir=folder.path) as name, writing(name):
        work = Path(name)
        _check_room(run, parts, work)
        pack(run, config, parts, folder.path, work, steps, 0 if semantics_only else decoded)
        certificate = Certificate(steps)
        folder.say(f"{run.recipe}: {steps} steps of both twins in float64")
        _semantics(certificate, work)
        if not semantics_only:
            _float32(certificate, work, folder)
        if certificate.half and not certificate.semantics.stopped:
            _relays(certificate, work, folder)
        if not semantics_only:
            _decoding(certificate, parts, work)
    return certificate


def _check_room(run: Run, parts: job.Parts, work: Path) -> None:
    """Refuse to start if a few steps of both recordings do not fit on the disk."""
    learned = parts.learned
    values = sum(int(np.prod(p.shape)) for p in run.model.parameters(learned.inputs, learned.outputs).values())
    copies = 2 + len(run.optimizer.moments)  # weights, moments, and an average in some runs
    need = 2 * (AHEAD + 1) * copies * values * 8
    if shutil.disk_usage(work).free < 2 * need:
        raise RunError(f"{work}: needs about {2 * need:,} bytes temporarily, {room(work)}")


def pack(
    run: Run, config: Mapping[str, Any], parts: job.Parts, learned: Path, work: Path, steps: int, decoded: int
) -> None:
    """Write the workers' inputs: the config, the plan, the batches of all steps and those to decode."""
    train, test = parts.data["train"], parts.data["test"] if len(parts.data["test"].split) else parts.data["validation"]
    (work / "batches").mkdir()
    count = steps * run.trainer.accumulate + AHEAD_OF_STEPS
    epoch = 0
    while count > 0 and epoch < run.trainer.max_epochs:
        for positions in train.plan.epoch(epoch)[:count]:
            np.savez(batch_path(work, "train", epoch, positions), **train.collator(positions, epoch))  # type: ignore[arg-type]
        count, epoch = count - len(train.plan), epoch + 1
    groups = _spread(test.plan.in_order(), decoded)
    for positions in groups:
        np.savez(batch_path(work, "test", 0, positions), **test.collator(positions, 0))  # type: ignore[arg-type]
    plan = train.plan
    arrays = {"lengths": plan.lengths} | ({} if plan.padded is None else {"padded": plan.padded})
    np.savez(work / "plan.npz", **arrays)  # type: ignore[arg-type]
    settings = {
        "config": dict(config),
        "allow": list(run.allow),
        "learned": str(learned),
        "steps": steps,
        "half": steps // 2,
        "budget": plan.budget,
        "most": plan.most,
        "plan_seed": plan.seed,
        "multiple": plan.multiple,
        "decoded": [positions.tolist() for positions in groups],
    }
    (work / "job.json").write_text(json.dumps(settings), "utf-8")


def _spread(batches: Sequence[np.ndarray], count: int) -> list[np.ndarray]:
    """Choose about ``count`` examples of all lengths, and group those of similar length."""
    order = np.concatenate(list(batches))
    sample = order[:: max(1, len(order) // max(1, count))][:count]
    groups = np.array_split(sample, -(-len(sample) // DECODED_TOGETHER)) if count else []
    return [group for group in groups if len(group)]


@contextlib.contextmanager
def training(work: Path, name: str) -> Iterator[Reader]:
    """Start a worker and give its recording; kill the worker if the ``with`` block is left early."""
    threads = str(TRAININGS[name].threads)
    environment = os.environ | {
        "OMP_NUM_THREADS": threads,
        "OMP_WAIT_POLICY": "PASSIVE",  # spinning threads would slow the other worker
        "CUDA_VISIBLE_DEVICES": "",  # the floor compares CPU threads
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
    log = work / f"{name}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", WORKER, str(work), name], env=environment, stdout=out, stderr=out
        )
    try:
        yield Reader(work / name, process, log)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _semantics(certificate: Certificate, work: Path) -> None:
    """Run both float64 trainings at the same time, and compare each step as it comes."""
    with training(work, "torch64") as torch, training(work, "tf64") as tf:
        compare(certificate.semantics, certificate.steps, torch, tf, certificate)
        if not certificate.semantics.stopped:
            torch.finish()
            tf.finish()
    place = certificate.semantics.first
    certificate.places["semantics"] = str(place) if place else None


def compare(comparison: Comparison, steps: int, torch: Reader, tf: Reader, certificate: Certificate) -> None:
    """Compare two recordings up to their last step, or until one stops."""
    names = ("torch64", "tf64")
    curves = [certificate.curves.setdefault(name, []) for name in names]
    for step in range(steps + 1):
        arrays = []
        for reader, backend in ((torch, "torch"), (tf, "tf")):
            try:
                arrays.append(reader.read(step))
            except Stopped as stopped:
                comparison.stop(step, f"{backend} stopped: {stopped}")
        if comparison.stopped:
            return
        comparison.add(step, *arrays)
        if step:
            values = [figures(a) for a in arrays]
            for curve, figure in zip(curves, values, strict=True):
                curve.append(figure["loss"])
            certificate.rates.append(values[0]["learning_rate"])
            for name, all_arrays in zip(names, arrays, strict=True):
                entry = all_arrays if step == steps else {key: all_arrays[key] for key in values[0]}
                certificate.ends.setdefault(name, []).append(entry)


def _float32(certificate: Certificate, work: Path, folder: RunFolder) -> None:
    """Run the float32 trainings one after the other, because some differ only in their threads."""
    first_steps = {}
    for name, settings in TRAININGS.items():
        if settings.precision == "64" or settings.after:
            continue
        folder.say(f"{settings.backend} in float32{f', {FLOORS[name]}' if name in FLOORS else ''}")
        with training(work, name) as reader:
            first_steps[name] = reader.read(0)
            place = losses(certificate, name, reader, 0)
        if place and name not in FLOORS:  # a training of the floor that stops early gives no floor
            certificate.places["float32"] = place
            return
    certificate.narrow.add(0, first_steps["torch32"], first_steps["tf32"])
    judge_float32(certificate)


def losses(certificate: Certificate, name: str, reader: Reader, done: int) -> str | None:
    """Read the losses of a training after step ``done``; return the place where it stopped early, if it did."""
    curve = certificate.curves.setdefault(name, [])
    for step in range(done + 1, certificate.steps + 1):
        try:
            curve.append(figures(reader.read(step))["loss"])
        except Stopped as stopped:
            return f"step {step}, loss: {TRAININGS[name].backend} stopped: {stopped}"
    reader.finish()
    return None


def judge_float32(certificate: Certificate) -> None:
    """Judge the float32 gate by the curves."""
    certificate.drift = drift(certificate.curves["tf32"], certificate.curves["torch32"])
    for name in FLOORS:
        curve, alone = certificate.curves[name], certificate.curves[f"{TRAININGS[name].backend}32"]
        if len(curve) == len(alone):
            certificate.floor[name] = drift(curve, alone)
    certificate.places["float32"] = beyond(certificate.drift, gates.FLOAT32_FIRST_STEPS, certificate.allowed_drift)


def beyond(apart: Sequence[float], fixed: Mapping[int, float], later: float, done: int = 0) -> str | None:
    """Return the first of the losses' distances that is beyond the gate.

    Args:
        apart: from the first step after ``done`` steps on.
        fixed: step, counted from there -> limit.
        later: limit of all other steps.
    """
    for step, gap in enumerate(apart, 1):
        allowed = fixed.get(step, later)
        if not (np.isfinite(gap) and gap <= allowed):
            note = "" if np.isfinite(gap) else "not finite"
            return f"{Gap(done + step, 'loss', '', gap, note)}; allowed {allowed:.2g}"
    return None


def _relays(certificate: Certificate, work: Path, folder: RunFolder) -> None:
    """Run the trainings that change framework half-way, and compare each with the one whose checkpoint it resumes."""
    folder.say(f"both, with the framework changed after step {certificate.half}")
    wide, narrow = ([n for n, r in RELAYS.items() if r.precision == p] for p in ("64", "32"))
    with contextlib.ExitStack() as stack:
        readers = {name: stack.enter_context(training(work, name)) for name in wide}
        for name in wide:
            sides = (f"{TRAININGS[RELAYS[name].after].backend} alone", RELAYS[name].backend)
            certificate.relays[name] = Comparison(gates.FLOAT64, unjudged=certificate.semantics.unjudged, sides=sides)
        for step in range(certificate.half + 1, certificate.steps + 1):
            for name, reader in readers.items():
                follow(certificate, name, reader, step)
        for name, reader in readers.items():
            if not certificate.relays[name].stopped:
                reader.finish()
    for name in narrow if certificate.drift else []:
        for course in (name, RELAY_FLOORS[name]):
            with training(work, course) as reader:
                losses(certificate, course, reader, certificate.half)
    judge_relays(certificate)


def follow(certificate: Certificate, name: str, reader: Reader, step: int) -> None:
    """Compare a step of a float64 relay with the training whose checkpoint it resumes."""
    comparison = certificate.relays[name]
    if comparison.stopped:
        return
    try:
        arrays = reader.read(step)
    except Stopped as stopped:
        comparison.stop(step, f"{RELAYS[name].backend} stopped: {stopped}")
        return
    comparison.add(step, certificate.ends[RELAYS[name].after][step - 1], arrays)
    certificate.curves.setdefault(name, []).append(figures(arrays)["loss"])


def judge_relays(certificate: Certificate) -> None:
    """Judge the gate of a change of framework by the float64 comparisons and the float32 curves.

    A loss that is missing at the end is not finite. A relay from moved weights that stops early gives no floor.
    """
    places = {name: str(comparison.first) for name, comparison in certificate.relays.items() if comparison.first}
    for name, settings in RELAYS.items():
        if settings.precision == "32" and (curve := certificate.curves.get(name)) is not None:
            alone = certificate.curves[settings.after][certificate.half :]
            certificate.relay_drift[name] = drift(curve + [np.nan] * (len(alone) - len(curve)), alone)
            floor_curve = certificate.curves.get(RELAY_FLOORS[name], [])
            certificate.relay_floor[name] = drift(floor_curve, curve) if len(floor_curve) == len(curve) else []
            later = certificate.allowed_relay_drift(name)
            place = beyond(certificate.relay_drift[name], gates.FLOAT32_AFTER_A_CHANGE, later, certificate.half)
            if place:
                places[name] = place
    certificate.places["relay"] = next((f"{relay(certificate, name)}: {place}" for name, place in places.items()), None)


def relay(certificate: Certificate, name: str) -> str:
    """Describe a relay."""
    first, then = TRAININGS[RELAYS[name].after].backend, RELAYS[name].backend
    return f"float{RELAYS[name].precision}, {first} to step {certificate.half}, then {then}"


def _decoding(certificate: Certificate, parts: job.Parts, work: Path) -> None:
    """Compare the texts that both frameworks decoded from the same checkpoint."""
    files = [work / f"decoded-{name}.json" for name in ("torch32", "tf32")]
    if not all(file.exists() for file in files):
        return
    torch, tf = (json.loads(file.read_text("utf-8")) for file in files)
    split = "test" if len(parts.data["test"].split) else "validation"
    ids = parts.data[split].split.ids
    unlike = [e for e in torch if e not in tf or torch[e]["hypothesis"] != tf[e]["hypothesis"]]
    certificate.decoding = {
        "split": split,
        "examples": len(torch),
        "identical": len(torch) - len(unlike),
        "different_texts": len({row["hypothesis"] for row in torch.values()}),
        "empty": sum(not row["hypothesis"] for row in torch.values()),
        "score_gap": max(abs(torch[e]["score"] - tf[e]["score"]) for e in torch if e in tf) if torch else 0.0,
    }
    certificate.places["decoding"] = None
    if unlike:
        texts = [rows.get(unlike[0], {}).get("hypothesis") for rows in (torch, tf)]
        certificate.places["decoding"] = f"{split} example {ids[int(unlike[0])]}: torch {texts[0]!r}, tf {texts[1]!r}"

"""Makes a certificate: prepares the data once, lets both twins train in processes of their own, compares them."""

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
from typing import Any

import numpy as np

from toolkit.certify import gates
from toolkit.certify.compare import Comparison, Gap, drift, figures
from toolkit.certify.stream import AHEAD, Arrays, Reader, Stopped
from toolkit.certify.worker import RELAYS, TRAININGS, batch_path
from toolkit.config.contracts import DropsOut
from toolkit.errors import ConfigError, RunError, room, writing
from toolkit.runs import job
from toolkit.runs.folder import RunFolder

WORKER = "toolkit.certify.worker"
AHEAD_OF_STEPS = 8  # batches that a loader may ask for before their step comes
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
    """What was found.

    Args:
        steps: of each training.
        semantics: the float64 comparison.
        narrow: the float32 comparison of step 1, which is shown and not judged.
        curves: training -> its losses.
        rates: learning rates.
        ends: float64 training -> the figures of each step, and of the last step everything.
        relays: float64 training that goes on from the other framework's checkpoint -> its comparison with that one.
        drift: of the twins' float32 losses.
        relay_drift: the same of the float32 trainings that change framework, from the step after the change.
        floor: of ``FLOORS`` -> the drift of its losses from those of its framework's float32 training.
        relay_floor: float32 relay -> the drift of the same relay from moved weights.
        decoding: how many texts, how many of them equal, and so on; empty where there was nothing to decode.
        places: gate -> where it was broken first; gates that were not tried are missing.
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
        """The first place where the twins part, of the first gate that was broken."""
        return next((place for place in self.places.values() if place), None)

    @property
    def half(self) -> int:
        """The step after which a relay changes framework; 0: too few steps for one."""
        return self.steps // 2

    @property
    def allowed_drift(self) -> float:
        """Of the float32 losses from step 4 on."""
        return self._allowed(self.floor.values())

    def allowed_relay_drift(self, name: str) -> float:
        """Of the float32 losses of a relay, from the second step after the change on."""
        return self._allowed([*self.floor.values(), self.relay_floor.get(name, [])])

    @staticmethod
    def _allowed(floors: Iterable[Sequence[float]]) -> float:
        floor = max((max(values, default=0.0) for values in floors), default=0.0)
        return gates.FLOOR_MULTIPLE * max(floor, gates.FLOAT32_UNIT)


def certify(
    run: Any, config: Mapping[str, Any], folder: RunFolder, steps: int, decoded: int, only: bool
) -> Certificate:
    """Train both twins and compare them.

    Args:
        run: ``toolkit.config.schema.Run``, checked.
        config: the same, as plain data.
        folder: where what the recipe learns from its data goes.
        steps: of each training; a recipe may have fewer.
        decoded: test examples to be decoded.
        only: the semantics gate only.

    Raises:
        UserError: bad data, a full disk, a process that failed.
    """
    parts = job.prepare(run, folder)
    steps = min(steps, parts.data["train"].steps(run.trainer))
    with tempfile.TemporaryDirectory(prefix=".work-", dir=folder.path) as name, writing(name):
        work = Path(name)
        _check_room(run, parts, work)
        pack(run, config, parts, folder.path, work, steps, 0 if only else decoded)
        made = Certificate(steps)
        folder.say(f"{run.recipe}: {steps} steps of both twins in float64")
        _semantics(made, work)
        if not only:
            _float32(made, work, folder)
        if made.half and not made.semantics.stopped:
            _relays(made, work, folder)
        if not only:
            _decoding(made, parts, work)
    return made


def _check_room(run: Any, parts: job.Parts, work: Path) -> None:
    """Refuse to begin where a few steps of both recordings would not fit."""
    learned = parts.learned
    values = sum(int(np.prod(p.shape)) for p in run.model.parameters(learned.inputs, learned.outputs).values())
    kept = 2 + len(run.optimizer.moments)  # weights and moments, and perhaps an average
    need = 2 * (AHEAD + 1) * kept * values * 8
    if shutil.disk_usage(work).free < 2 * need:
        raise RunError(f"{work}: needs about {2 * need:,} bytes for a while, {room(work)}")


def pack(
    run: Any, config: Mapping[str, Any], parts: job.Parts, learned: Path, work: Path, steps: int, decoded: int
) -> None:
    """Leave for the workers what they train on: the config, the plan, the batches of all steps and of the test."""
    train, test = parts.data["train"], parts.data["test"] if len(parts.data["test"].split) else parts.data["validation"]
    (work / "batches").mkdir()
    wanted = steps * run.trainer.accumulate + AHEAD_OF_STEPS
    epoch = 0
    while wanted > 0 and epoch < run.trainer.max_epochs:
        for positions in train.plan.epoch(epoch)[:wanted]:
            np.savez(batch_path(work, "train", epoch, positions), **train.collator(positions, epoch))  # type: ignore[arg-type]
        wanted, epoch = wanted - len(train.plan), epoch + 1
    groups = _spread(test.plan.in_order(), decoded)
    for positions in groups:
        np.savez(batch_path(work, "test", 0, positions), **test.collator(positions, 0))  # type: ignore[arg-type]
    plan = train.plan
    arrays = {"lengths": plan.lengths} | ({} if plan.padded is None else {"padded": plan.padded})
    np.savez(work / "plan.npz", **arrays)  # type: ignore[arg-type]
    told = {
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
    (work / "job.json").write_text(json.dumps(told), "utf-8")


def _spread(batches: Sequence[np.ndarray], count: int) -> list[np.ndarray]:
    """About ``count`` examples of all lengths, of like lengths together."""
    order = np.concatenate(list(batches))
    chosen = order[:: max(1, len(order) // max(1, count))][:count]
    return [part for part in np.array_split(chosen, -(-len(chosen) // DECODED_TOGETHER)) if len(part)] if count else []


@contextlib.contextmanager
def training(work: Path, name: str) -> Iterator[Reader]:
    """A worker at its training, and its recording; it is stopped where it is left early."""
    threads = str(TRAININGS[name].threads)
    environment = os.environ | {
        "OMP_NUM_THREADS": threads,
        "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin would take the other worker's time
        "CUDA_VISIBLE_DEVICES": "",  # the floor is one of CPU threads
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


def _semantics(made: Certificate, work: Path) -> None:
    """Both float64 trainings at the same time, each step compared and forgotten."""
    with training(work, "torch64") as torch, training(work, "tf64") as tf:
        compare(made.semantics, made.steps, torch, tf, made)
        if not made.semantics.stopped:
            torch.finish()
            tf.finish()
    place = made.semantics.first
    made.places["semantics"] = str(place) if place else None


def compare(found: Comparison, steps: int, torch: Reader, tf: Reader, made: Certificate) -> None:
    """Hold two recordings against each other, to the end of both or to where one stops."""
    names = ("torch64", "tf64")
    curves = [made.curves.setdefault(name, []) for name in names]
    for step in range(steps + 1):
        arrays = []
        for reader, backend in ((torch, "torch"), (tf, "tf")):
            try:
                arrays.append(reader.read(step))
            except Stopped as stopped:
                found.stop(step, f"{backend} stopped: {stopped}")
        if found.stopped:
            return
        found.add(step, *arrays)
        if step:
            told = [figures(a) for a in arrays]
            for curve, figure in zip(curves, told, strict=True):
                curve.append(figure["loss"])
            made.rates.append(told[0]["learning_rate"])
            for name, held in zip(names, arrays, strict=True):
                kept = held if step == steps else {key: held[key] for key in told[0]}
                made.ends.setdefault(name, []).append(kept)


def _float32(made: Certificate, work: Path, folder: RunFolder) -> None:
    """The float32 trainings one after the other, for threads are what some of them differ in."""
    first_steps = {}
    for name, planned in TRAININGS.items():
        if planned.precision == "64" or planned.after:
            continue
        folder.say(f"{planned.backend} in float32{f', {FLOORS[name]}' if name in FLOORS else ''}")
        with training(work, name) as reader:
            first_steps[name] = reader.read(0)
            made.places["float32"] = losses(made, name, reader, 0)
        if made.places["float32"]:
            return
    made.narrow.add(0, first_steps["torch32"], first_steps["tf32"])
    judge_float32(made)


def losses(made: Certificate, name: str, reader: Reader, done: int) -> str | None:
    """Take the losses of a training from after step ``done`` to the end; returns where it stopped before."""
    curve = made.curves.setdefault(name, [])
    for step in range(done + 1, made.steps + 1):
        try:
            curve.append(figures(reader.read(step))["loss"])
        except Stopped as stopped:
            return f"step {step}, loss: {TRAININGS[name].backend} stopped: {stopped}"
    reader.finish()
    return None


def judge_float32(made: Certificate) -> None:
    """The float32 gate, from the curves."""
    made.drift = drift(made.curves["tf32"], made.curves["torch32"])
    for name in FLOORS:
        curve, alone = made.curves[name], made.curves[f"{TRAININGS[name].backend}32"]
        if len(curve) == len(alone):
            made.floor[name] = drift(curve, alone)
    made.places["float32"] = beyond(made.drift, gates.FLOAT32_FIRST_STEPS, made.allowed_drift)


def beyond(apart: Sequence[float], fixed: Mapping[int, float], later: float, done: int = 0) -> str | None:
    """The first of the losses' distances that is beyond the gate.

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


def _relays(made: Certificate, work: Path, folder: RunFolder) -> None:
    """Trainings that change framework half-way, held against the ones whose checkpoints they go on from."""
    folder.say(f"both, with the framework changed after step {made.half}")
    wide, narrow = ([n for n, r in RELAYS.items() if r.precision == p] for p in ("64", "32"))
    with contextlib.ExitStack() as stack:
        readers = {name: stack.enter_context(training(work, name)) for name in wide}
        for name in wide:
            sides = (f"{TRAININGS[RELAYS[name].after].backend} alone", RELAYS[name].backend)
            made.relays[name] = Comparison(gates.FLOAT64, unjudged=made.semantics.unjudged, sides=sides)
        for step in range(made.half + 1, made.steps + 1):
            for name, reader in readers.items():
                follow(made, name, reader, step)
        for name, reader in readers.items():
            if not made.relays[name].stopped:
                reader.finish()
    for name in narrow if made.drift else []:
        for course in (name, RELAY_FLOORS[name]):
            with training(work, course) as reader:
                losses(made, course, reader, made.half)
    judge_relays(made)


def follow(made: Certificate, name: str, reader: Reader, step: int) -> None:
    """Hold a step of a float64 relay against the training whose checkpoint it goes on from."""
    found = made.relays[name]
    if found.stopped:
        return
    try:
        arrays = reader.read(step)
    except Stopped as stopped:
        found.stop(step, f"{RELAYS[name].backend} stopped: {stopped}")
        return
    found.add(step, made.ends[RELAYS[name].after][step - 1], arrays)
    made.curves.setdefault(name, []).append(figures(arrays)["loss"])


def judge_relays(made: Certificate) -> None:
    """The gate of a change of framework, from the float64 comparisons and the float32 curves.

    A loss that is missing at the end is not finite. A relay from moved weights that stops early gives no floor.
    """
    found = {name: str(comparison.first) for name, comparison in made.relays.items() if comparison.first}
    for name, planned in RELAYS.items():
        if planned.precision == "32" and (curve := made.curves.get(name)) is not None:
            alone = made.curves[planned.after][made.half :]
            made.relay_drift[name] = drift(curve + [np.nan] * (len(alone) - len(curve)), alone)
            moved = made.curves.get(RELAY_FLOORS[name], [])
            made.relay_floor[name] = drift(moved, curve) if len(moved) == len(curve) else []
            later = made.allowed_relay_drift(name)
            place = beyond(made.relay_drift[name], gates.FLOAT32_AFTER_A_CHANGE, later, made.half)
            if place:
                found[name] = place
    made.places["relay"] = next((f"{relay(made, name)}: {place}" for name, place in found.items()), None)


def relay(made: Certificate, name: str) -> str:
    """How a relay is told."""
    first, then = TRAININGS[RELAYS[name].after].backend, RELAYS[name].backend
    return f"float{RELAYS[name].precision}, {first} to step {made.half}, then {then}"


def _decoding(made: Certificate, parts: job.Parts, work: Path) -> None:
    """The same checkpoint, decoded by both."""
    files = [work / f"decoded-{name}.json" for name in ("torch32", "tf32")]
    if not all(file.exists() for file in files):
        return
    torch, tf = (json.loads(file.read_text("utf-8")) for file in files)
    split = "test" if len(parts.data["test"].split) else "validation"
    ids = parts.data[split].split.ids
    unlike = [e for e in torch if e not in tf or torch[e]["hypothesis"] != tf[e]["hypothesis"]]
    made.decoding = {
        "split": split,
        "examples": len(torch),
        "identical": len(torch) - len(unlike),
        "different_texts": len({row["hypothesis"] for row in torch.values()}),
        "empty": sum(not row["hypothesis"] for row in torch.values()),
        "score_gap": max(abs(torch[e]["score"] - tf[e]["score"]) for e in torch if e in tf) if torch else 0.0,
    }
    made.places["decoding"] = None
    if unlike:
        texts = [rows.get(unlike[0], {}).get("hypothesis") for rows in (torch, tf)]
        made.places["decoding"] = f"{split} example {ids[int(unlike[0])]}: torch {texts[0]!r}, tf {texts[1]!r}"


def check(run: Any, overrides: Sequence[str]) -> None:
    """Refuse what no certificate can be made of.

    Raises:
        ConfigError: with every reason.
    """
    trainer, found = run.trainer, []
    for key, why in (("backend", "both are compared"), ("resume", "it starts anew"), ("evaluate", "it trains")):
        if any(word.startswith(f"{key}=") for word in overrides):
            found.append(f"{key}: given, expected to be left out; a certificate says how two runs train: {why}")
    if trainer.precision != "32":
        found.append(
            f"trainer.precision: found {trainer.precision}, expected to be left out: float64 and float32 are run"
        )
    if trainer.shares > 1:
        found.append(f"trainer.devices: found {trainer.shares}, expected 1: the twins are compared on one device each")
    if trainer.loop == "stock":
        found.append("trainer.loop: found stock, expected neutral, whose steps are recorded")
    if run.dataset.streaming:
        found.append("dataset.streaming: found true, expected false: the batches of both are made beforehand")
    if isinstance(run.model, DropsOut) and run.model.native_dropout:
        found.append("model.native_dropout: found true, expected false: the frameworks' own masks differ by design")
    if found:
        raise ConfigError(found, "no certificate can be made:")

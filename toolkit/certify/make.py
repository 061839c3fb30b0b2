"""Make a certificate: check what is asked for, certify, and write the files."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.certify import page
from toolkit.certify.certificate import Certificate, certify
from toolkit.config import process, schema
from toolkit.errors import ConfigError
from toolkit.runs.folder import RunFolder, environment
from toolkit.runs.place import claimed

if TYPE_CHECKING:
    from toolkit.config.schema import Run


def make(
    overrides: Sequence[str],
    folders: Sequence[Path] = (),
    steps: int = 100,
    decode: int = 64,
    semantics_only: bool = False,
    command: Sequence[str] = (),
) -> Certificate:
    """Certify the run that overrides describe, and write ``certificate.json`` and ``certificate.html``.

    This process loads no framework, and neither can its libraries from now on.

    Args:
        overrides: of the command line, without ``backend`` and ``trainer.precision``.
        folders: more folders of groups and recipes.
        steps: optimizer steps of each training.
        decode: test examples that both backends decode.
        semantics_only: float64 only, four trainings instead of fifteen.
        command: the command line, to be written down.

    Raises:
        UserError: bad config or data, a framework that is not installed, or a training that failed.
    """
    run = schema.check(overrides, folders)
    _check(run, overrides)
    if lacking := [line for backend in process.FRAMEWORKS if (line := process.missing(backend))]:
        raise ConfigError(lacking, "a certificate needs both frameworks:")
    process.hide(set().union(*process.FOREIGN.values()))
    began = time.perf_counter()
    with (
        claimed(replace(run, run_dir=str(_folder(run, overrides))), overrides) as claim,
        contextlib.closing(RunFolder(Path(claim.run.run_dir))) as folder,
    ):
        config = schema.plain(run)
        certificate = certify(run, config, folder, steps, decode, semantics_only)
        about = environment([]) | {"command": list(command)}
        page.write(certificate, run, config, about, round(time.perf_counter() - began, 1), folder)
    return certificate


def _folder(run: Run, overrides: Sequence[str]) -> Path:
    if any(word.lstrip("+").startswith("run_dir=") for word in overrides):
        return Path(run.run_dir)
    return Path("outputs/certificates") / run.recipe / time.strftime("%Y-%m-%d_%H-%M-%S")


def _check(run: Run, overrides: Sequence[str]) -> None:
    """Refuse a run that cannot be certified.

    Raises:
        ConfigError: with every reason.
    """
    trainer, problems = run.trainer, []
    for key, why in (
        ("backend", "trains both backends"),
        ("resume", "starts from the first step"),
        ("evaluate", "trains"),
        ("check", "trains"),
    ):
        if any(word.lstrip("+").startswith(f"{key}=") for word in overrides):
            problems.append(f"{key}: given, expected no such override: a certificate {why}")
    if trainer.precision != "32":
        problems.append(
            f"trainer.precision: found {trainer.precision}, expected no such override: a certificate trains in float64 "
            "and float32"
        )
    if trainer.total_devices > 1:
        problems.append(f"trainer.devices: found {trainer.total_devices}, expected 1: each twin trains on one device")
    if trainer.loop == "stock":
        problems.append("trainer.loop: found stock, expected neutral: only its steps can be recorded")
    if run.dataset.streaming:
        problems.append("dataset.streaming: found true, expected false: the batches are prepared before training")
    if run.model.native_dropout:
        problems.append("model.native_dropout: found true, expected false: each framework draws its own masks")
    if problems:
        raise ConfigError(problems, "this run cannot be certified:")

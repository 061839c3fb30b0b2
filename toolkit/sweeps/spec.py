"""How the jobs of a sweep are chosen, and where they run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from toolkit.config.spec import option, spec


@spec
class Grid:
    """Every combination of the values."""


@spec
class Optuna:
    """Bayesian search over the ranges (Akiba et al. 2019, Optuna)."""

    trials: int = option(20, "trials in all, those before an interruption counted", ge=1)
    sampler: Literal["tpe", "random", "nsgaii"] = option(
        "tpe",
        "tpe: tree-structured Parzen estimator (Bergstra et al. 2011); random; nsgaii: evolution, for several "
        "objectives (Deb et al. 2002)",
    )
    pruner: Literal["none", "median", "hyperband"] = option(
        "median",
        "which trials are stopped early, by their validations: those worse than the median of the earlier ones at the "
        "same epoch; those that lose a bracket (Li et al. 2018); none. It needs one objective of the validation split "
        "and one seed",
    )
    startup: int = option(5, "trials drawn at random before sampler and pruner judge by the earlier ones", ge=1)
    seed: int = option(0, "of the sampler", ge=0, lt=2**31)
    storage: str | None = option(
        None, "database of the trials, as sqlite:///FILE or postgresql://...; null: a file in the sweep's folder"
    )
    study: str | None = option(
        None, "the study's name in the database; sweeps that share both share their trials; null: the sweep's folder"
    )


@spec
class Local:
    """Processes of this machine."""

    jobs: int = option(1, "at the same time", ge=1)
    gpus: tuple[str, ...] = option(
        (), "the CUDA_VISIBLE_DEVICES of each job at the same time, as [0,1] or ['0,1','2,3']; []: all see all"
    )

    def check(self) -> Iterator[tuple[str, str]]:
        if self.gpus and len(self.gpus) != self.jobs:
            yield "gpus", f"found {len(self.gpus)}, expected as many as launcher.jobs, {self.jobs}, or none"


@spec
class Submitit:
    """Jobs of a Slurm cluster, by submitit. The sweep itself waits where it was started, such as on a login node."""

    cluster: Literal["slurm", "local"] = option("slurm", "local: submitit's own processes here, to try it out")
    jobs: int = option(16, "at the same time", ge=1)
    partition: str | None = option(None, "of the cluster; null: its default")
    account: str | None = option(None, "that is charged; null: the user's default")
    cpus: int = option(4, "cores of a job", ge=1)
    gpus: int = option(0, "GPUs of a job", ge=0)
    memory_gb: float = option(16.0, "memory of a job, GB", gt=0)
    minutes: int = option(240, "after so long Slurm ends a job; it is queued again and goes on", ge=1)
    setup: tuple[str, ...] = option((), "lines of shell before a job, such as 'module load cuda'")


@spec
class Ray:
    """Tasks of a Ray cluster, all of whose machines share the sweep's folder."""

    address: str | None = option(None, "of the cluster, auto for the one of this machine; null: start one here")
    jobs: int = option(16, "at the same time", ge=1)
    cpus: float = option(1.0, "cores of a job", gt=0)
    gpus: float = option(0.0, "GPUs of a job", ge=0)

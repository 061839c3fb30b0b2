"""Specs of searches and launchers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from toolkit.config.spec import option, spec


@spec
class Grid:
    """Grid search: all combinations of the values."""


@spec
class Optuna:
    """Bayesian search over the ranges (Akiba et al. 2019, Optuna)."""

    trials: int = option(20, "number of trials, including those before an interruption", ge=1)
    sampler: Literal["tpe", "random", "nsgaii"] = option(
        "tpe",
        "tpe: tree-structured Parzen estimator (Bergstra et al. 2011); random; nsgaii: evolution, for several "
        "objectives (Deb et al. 2002)",
    )
    pruner: Literal["none", "median", "hyperband"] = option(
        "median",
        "early stopping of trials: median: worse than the median of earlier trials at the same validation; hyperband "
        "(Li et al. 2018); none. Requires one objective of the validation split and seeds=1",
    )
    startup: int = option(5, "random trials before sampler and pruner use the earlier ones", ge=1)
    seed: int = option(0, "random seed of the sampler", ge=0, lt=2**31)
    storage: str | None = option(
        None, "database of the trials, such as sqlite:///FILE or postgresql://...; null: a file in the sweep's folder"
    )
    study: str | None = option(
        None, "name of the study in the database; sweeps with the same study share trials; null: the sweep's folder"
    )


@spec
class Local:
    """Processes of this machine."""

    jobs: int = option(1, "parallel runs", ge=1)
    gpus: tuple[str, ...] = option(
        (), "CUDA_VISIBLE_DEVICES of each parallel run, such as [0,1] or ['0,1','2,3']; []: all GPUs for each"
    )

    def check(self) -> Iterator[tuple[str, str]]:
        if self.gpus and len(self.gpus) != self.jobs:
            yield "gpus", f"found {len(self.gpus)}, expected as many as launcher.jobs, {self.jobs}, or none"


@spec
class Submitit:
    """Jobs of a Slurm cluster, by submitit. The sweep itself runs where it was started, such as on a login node."""

    cluster: Literal["slurm", "local"] = option("slurm", "local: processes of this machine, for tests")
    jobs: int = option(16, "parallel runs", ge=1)
    partition: str | None = option(None, "partition; null: the cluster's default")
    account: str | None = option(None, "account; null: the user's default")
    cpus: int = option(4, "cores of a job", ge=1)
    gpus: int = option(0, "GPUs of a job", ge=0)
    memory_gb: float = option(16.0, "memory of a job, GB", gt=0)
    minutes: int = option(240, "time limit of a job, after which Slurm queues it again and it resumes", ge=1)
    setup: tuple[str, ...] = option((), "shell lines before a job, such as 'module load cuda'")


@spec
class Ray:
    """Tasks of a Ray cluster whose machines share the sweep's folder."""

    address: str | None = option(None, "address of the cluster; auto: that of this machine; null: start one here")
    jobs: int = option(16, "parallel runs", ge=1)
    cpus: float = option(1.0, "cores of a job", gt=0)
    gpus: float = option(0.0, "GPUs of a job", ge=0)

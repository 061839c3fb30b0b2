"""``toolkit run``: compose, check and run one config, or several with ``-m``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from toolkit.cli.guard import guarded
from toolkit.config.paths import CONF, RECIPES
from toolkit.errors import ConfigError

SUMMARY = "train a recipe and evaluate it"
USAGE = """\
usage: python -m toolkit.run recipe=NAME [backend=torch|tf] [GROUP=OPTION] [KEY=VALUE ...]
       python -m toolkit.run resume=RUN_FOLDER | evaluate=RUN_FOLDER [KEY=VALUE ...]

Trains a recipe, evaluates it, and leaves a run folder with its config, results and checkpoints.
"""
COMMON = """\
overrides (every field of every component is one; --cfg job shows them all)
  backend=torch|tf                the framework
  dataset.path=FOLDER             your own or local data
  optimizer.lr=NUMBER             learning rate
  trainer.max_steps=N             length in steps; also trainer.max_epochs=N; the first limit reached ends the run
  trainer.precision=64|32|bf16|16 precision
  trainer.devices=N               split each batch over N devices; the result is that of one
  trainer.checkpoint_every=STEPS  checkpoint interval, in steps
  seed=N                          random seed
  run_dir=FOLDER                  the run folder
  resume=RUN_FOLDER|auto          resume a run; auto: the run in run_dir, if there is one
  evaluate=RUN_FOLDER             evaluate a run again
  check=true                      describe the data, on the terminal and a page, and stop
  accept=[dataset,tokenizer,...]  resume despite a changed dataset or tokenizer
  allow=[PACKAGE]                 build specs from a package of your own
  seeds=N                         N runs, with seed, seed + 1, ...; mean and confidence interval
  sweep=grid|optuna               all combinations, or a search: optimizer.lr=tag(log,interval(1e-4,1e-2))
  launcher=local|slurm|ray        where the runs of a sweep execute, launcher.jobs=N of them in parallel

flags, after the overrides
  --cfg job                       print the composed config and stop
  -m                              sweep: one run for each combination of comma-separated values; docs/guide/sweeps.md
  --config-dir FOLDER             more options and recipes: GROUP/NAME.yaml, recipe/NAME.yaml
  --info, --hydra-help            Hydra's own

exit codes
  0 done   1 the run failed   2 bad config or data   130, 143 interrupted, with a checkpoint

examples
  python -m toolkit.run recipe=asr backend=tf
  python -m toolkit.run recipe=asr dataset=audio_folder dataset.path=recordings
  python -m toolkit.run recipe=asr backend=torch,tf optimizer.lr=1e-3,3e-3 -m
  python -m toolkit.run resume=outputs/asr/torch/2030-01-01_12-00-00 trainer.max_steps=8000
"""
REFUSED = {  # flags of Hydra that this program refuses -> reason
    "experimental_rerun": "--experimental-rerun is not supported, because it reads a pickle; use resume=RUN_FOLDER",
    "config_path": "--config-path is not supported; use --config-dir for groups and recipes of your own",
    "config_name": "--config-name is not supported; use recipe=NAME",
}


def main(argv: Sequence[str]) -> int:
    """Run the command that ``argv`` describes and return its exit code."""
    if not argv or {"-h", "--help"} & set(argv):
        print(help_text())
        return 0
    return guarded(lambda: _dispatch(argv))


def help_text() -> str:
    """Return the text of ``--help``, without Hydra, so that it is there at once."""
    lines = [USAGE, "recipes"]
    lines += [f"  {file.stem:<31} {_headline(file)}" for file in sorted(RECIPES.glob("*.yaml"))]
    lines += ["", "groups"]
    for group in sorted(folder for folder in CONF.iterdir() if folder.is_dir()):
        lines.append(f"  {group.name + '=':<31} {' '.join(sorted(file.stem for file in group.glob('*.yaml')))}")
    return "\n".join([*lines, "", COMMON]).rstrip()


def _headline(file: Path) -> str:
    """Return the first line of a YAML file's header comment."""
    for line in file.read_text("utf-8").splitlines():
        if line.startswith("#") and not line.startswith("# @"):
            return line.lstrip("# ")
    return ""


def _dispatch(argv: Sequence[str]) -> int:
    from hydra._internal.utils import get_args_parser

    args = get_args_parser().parse_intermixed_args(argv)
    refused = [why for name, why in REFUSED.items() if getattr(args, name) is not None]
    if refused:
        raise ConfigError(refused)
    from toolkit.config import compose, schema

    folders = [Path(args.config_dir)] if args.config_dir else []
    overrides = list(args.overrides)
    if args.info or args.hydra_help or args.shell_completion:
        compose.prepare(overrides, folders)
        return _hydra(argv)
    if args.cfg:
        schema.check_shown(overrides, folders)
        flags = ["--resolve"] if args.resolve else []
        flags += ["--package", args.package] if args.package else []
        return _hydra([*overrides, "--cfg", args.cfg, *flags])
    if args.multirun or compose.swept(overrides):
        from toolkit.sweeps import driver

        return driver.run(overrides, folders)
    from toolkit.runs.place import claimed
    from toolkit.runs.start import start
    from toolkit.training import processes

    processes.own_temporary_folder()
    run = schema.check(overrides, folders)
    if run.check:
        from toolkit.cli import check

        return check.describe(run, overrides)
    with claimed(run, overrides) as claim:
        claim.code = start(claim.run, overrides, folders)
    return claim.code


def _hydra(argv: Sequence[str]) -> int:
    """Call Hydra's own main with ``argv``, for flags that end before a task would run."""
    import hydra

    def task(config: object) -> None: ...

    sys.argv = [sys.argv[0], *argv]
    try:
        hydra.main(version_base="1.3", config_path=None, config_name="config")(task)()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0

"""The command line: compose, check, and run one config, or several with ``-m``."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from toolkit.errors import UNWRITABLE, ConfigError, Interrupted, UserError, disk_error

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
  trainer.max_steps=N             length, as trainer.max_epochs=N; what comes first ends the run
  trainer.precision=32|bf16|16    arithmetic
  trainer.devices=N               share each batch among so many devices; the result is that of one
  trainer.checkpoint_every=STEPS  how much a kill may cost
  seed=N                          another draw of everything random
  run_dir=FOLDER                  where the run folder goes
  resume=RUN_FOLDER|auto          go on from a run; auto: from run_dir, if it was begun
  evaluate=RUN_FOLDER             measure a run again
  accept=[dataset,tokenizer,...]  go on though these are others than the checkpoint was trained with
  allow=[PACKAGE]                 build specs from a package of your own
  seeds=N                         so many runs, with seed, seed + 1, ...; mean and interval
  sweep=grid|optuna               every combination, or a search: optimizer.lr=tag(log,interval(1e-4,1e-2))
  launcher=local|slurm|ray        where the runs of a sweep go; launcher.jobs=N of them at the same time

flags, after the overrides
  --cfg job                       print the composed config and stop
  -m                              a sweep: a run for each combination of comma-separated values; docs/sweeps.md
  --config-dir FOLDER             more groups and recipes, in the shape of conf/
  --info, --hydra-help            Hydra's own

exit codes
  0 done   1 the run failed   2 bad config or data   130, 143 interrupted; a checkpoint was left

examples
  python -m toolkit.run recipe=asr backend=tf
  python -m toolkit.run recipe=asr dataset=audio_folder dataset.path=recordings
  python -m toolkit.run recipe=asr backend=torch,tf optimizer.lr=1e-3,3e-3 -m
  python -m toolkit.run resume=outputs/asr/torch/2030-01-01_12-00-00 trainer.max_steps=8000
"""
REFUSED = {  # Hydra's flags that this program does not offer, and why
    "experimental_rerun": "--experimental-rerun reads a pickle; give resume=RUN_FOLDER",
    "config_path": "--config-path: give --config-dir for groups and recipes of your own",
    "config_name": "--config-name: give recipe=NAME",
}


def main() -> None:
    """Entry point of ``python -m toolkit.run`` and of the command ``toolkit``."""
    sys.exit(run(sys.argv[1:]))


def run(argv: Sequence[str]) -> int:
    """Do what the arguments ask for.

    Returns:
        the exit code.
    """
    if not argv or {"-h", "--help"} & set(argv):
        print(help_text())
        return 0
    return guarded(lambda: _dispatch(argv))


def guarded(work: Callable[[], int]) -> int:
    """Do ``work`` and return its exit code, or that of its error, which is printed."""
    try:
        return work()
    except UserError as error:
        return report(error)
    except Interrupted as error:
        _tell(f"{error}\n")
        return error.code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except OSError as error:
        if error.errno not in UNWRITABLE:
            _tell(traceback.format_exc())
            return 1
        return report(disk_error(error, "a file of the run"))
    except Exception:
        _tell(traceback.format_exc())
        return 1


def _tell(text: str) -> None:
    """Why the process ends: to standard error, or, where it is one of several that share a run, to their parent."""
    from toolkit.training import processes as ranks

    if path := os.environ.get(ranks.REPORT):
        Path(path).write_text(text, "utf-8")
    else:
        print(text, end="", file=sys.stderr)


def report(error: UserError) -> int:
    """Print what the user can mend, and return the exit code for it."""
    lines = [error.headline] if error.headline else []
    _tell("\n".join([*lines, *(f"  {line}" if lines else line for line in error.problems), ""]))
    return error.code


def help_text() -> str:
    """The text of ``--help``; made without Hydra, so that it is there at once."""
    here = Path(__file__).resolve().parent
    conf = here / "_conf" if (here / "_conf").is_dir() else here.parent / "conf"
    recipes = here / "_recipes" if (here / "_recipes").is_dir() else here.parent / "recipes"
    lines = [USAGE, "recipes"]
    lines += [f"  {file.stem:<31} {_headline(file)}" for file in sorted(recipes.glob("*.yaml"))]
    lines += ["", "groups"]
    for group in sorted(folder for folder in conf.iterdir() if folder.is_dir()):
        lines.append(f"  {group.name + '=':<31} {' '.join(sorted(file.stem for file in group.glob('*.yaml')))}")
    return "\n".join([*lines, "", COMMON]).rstrip()


def _headline(file: Path) -> str:
    """The first words of a YAML file's header comment."""
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
    from toolkit.config import compose
    from toolkit.config import schema as config

    folders = [Path(args.config_dir)] if args.config_dir else []
    overrides = list(args.overrides)
    if args.info or args.hydra_help or args.shell_completion:
        compose.prepare(overrides, folders)
        return _hydra(argv, _nothing)
    if args.cfg:
        config.check_shown(overrides, folders)
        flags = [flag for flag, on in (("--resolve", args.resolve),) if on]
        flags += ["--package", args.package] if args.package else []
        return _hydra([*overrides, "--cfg", args.cfg, *flags], _nothing)
    if args.multirun or compose.swept(overrides):
        from toolkit.sweeps import driver

        return driver.run(overrides, folders)
    from toolkit.runs.start import start

    return start(config.check(overrides, folders), overrides, folders)


def _nothing(config: Any) -> None: ...


def _hydra(argv: Sequence[str], task: Any) -> int:
    """Let Hydra's own main do what ``argv`` says."""
    import hydra

    sys.argv = [sys.argv[0], *argv]
    try:
        hydra.main(version_base="1.3", config_path=None, config_name="config")(task)()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0


if __name__ == "__main__":
    main()

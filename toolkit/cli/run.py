"""``toolkit run``: compose, check and run one config, or several with ``-m``."""

from __future__ import annotations

import argparse
import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit import __version__
from toolkit.cli import flags
from toolkit.cli.flags import Flags
from toolkit.cli.guard import guarded, outlast
from toolkit.config.paths import CONF, RECIPES
from toolkit.errors import ConfigError

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra

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
  0 done   1 the run failed   2 bad config or data   130, 143 interrupted; in training, with a checkpoint

examples
  python -m toolkit.run recipe=asr backend=tf
  python -m toolkit.run recipe=asr dataset=audio_folder dataset.path=recordings
  python -m toolkit.run recipe=asr backend=torch,tf optimizer.lr=1e-3,3e-3 -m
  python -m toolkit.run resume=outputs/asr/torch/2030-01-01_12-00-00 trainer.max_steps=8000
"""


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
    given = flags.parse(argv)
    if "--version" in given.values:
        print(f"toolkit {__version__}")
        return 0
    from toolkit.config import compose, schema

    overrides, folders = given.overrides, given.folders
    if set(flags.SHOWING) & given.values.keys():
        return _show(given)
    if "--multirun" in given.values or compose.swept(overrides):
        from toolkit.sweeps import driver

        outlast("stdout")
        return driver.run(overrides, folders)
    from toolkit.runs.place import claimed
    from toolkit.runs.start import start
    from toolkit.training import processes

    processes.own_temporary_folder()
    run = schema.check(overrides, folders)
    if run.check:
        from toolkit.cli import check

        return check.describe(run, overrides)
    outlast("stdout")
    with claimed(run, overrides) as claim:
        claim.code = start(claim.run, overrides, folders)
    return claim.code


def _show(given: Flags) -> int:
    """Print what a flag such as ``--cfg`` asks Hydra for."""
    from hydra._internal.hydra import Hydra
    from hydra._internal.utils import create_config_search_path
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from toolkit.config import compose, schema

    if "--cfg" in given.values or given.values.get("--info", "plugins") != "plugins":
        schema.check_shown(given.overrides, given.folders)
    else:
        compose.prepare(given.overrides, given.folders)
    # Hydra's log prints a traceback when the reader has ended, and its errors end the process with 1
    output, errors = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            _ask(Hydra.create_main_hydra2("run", create_config_search_path(None)), given)
    except SystemExit:
        raise ConfigError(errors.getvalue().strip().partition("\n")[0]) from None
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(compose.one_line(error)) from error
    finally:
        GlobalHydra.instance().clear()
    print(output.getvalue(), end="")
    return 0


def _ask(hydra: Hydra, given: Flags) -> None:
    """Call the function of Hydra that a flag stands for."""
    from hydra._internal.utils import get_args_parser

    values = given.values
    if "--cfg" in values:
        hydra.show_cfg("config", given.overrides, values["--cfg"], values.get("--package"), "--resolve" in values)
    elif "--info" in values:
        hydra.show_info(values["--info"], "config", given.overrides)
    elif "--shell-completion" in values:
        hydra.shell_completion("config", given.overrides)
    else:
        hydra.hydra_help(None, get_args_parser(), argparse.Namespace(overrides=[]))

"""The command line: compose, check, and run one config, or several with ``-m``."""

from __future__ import annotations

import os
import signal
import subprocess
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
  trainer.precision=32|bf16       arithmetic
  trainer.devices=N               share each batch among so many devices; the result is that of one
  trainer.checkpoint_every=STEPS  how much a kill may cost
  seed=N                          another draw of everything random
  run_dir=FOLDER                  where the run folder goes
  resume=RUN_FOLDER|auto          go on from a run; auto: from run_dir, if it was begun
  evaluate=RUN_FOLDER             measure a run again
  accept=[dataset,tokenizer,...]  go on though these are others than the checkpoint was trained with
  allow=[PACKAGE]                 build specs from a package of your own

flags, after the overrides
  --cfg job                       print the composed config and stop
  -m                              a run for each combination of comma-separated values
  --config-dir FOLDER             more groups and recipes, in the shape of conf/
  --info, --hydra-help            Hydra's own

exit codes
  0 done   1 the run failed   2 bad config or data   130, 143 interrupted; a checkpoint was left

examples
  python -m toolkit.run recipe=asr backend=tf
  python -m toolkit.run recipe=asr dataset=audio_folder dataset.path=recordings
  python -m toolkit.run recipe=asr backend=torch,tf seed=1,2,3 -m
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
    from toolkit import ranks

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

    args = get_args_parser().parse_args(argv)
    refused = [why for name, why in REFUSED.items() if getattr(args, name) is not None]
    if refused:
        raise ConfigError(refused)
    from toolkit import compose, config

    folders = [Path(args.config_dir)] if args.config_dir else []
    overrides = list(args.overrides)
    if args.info or args.hydra_help or args.shell_completion:
        compose.prepare(overrides, folders)
        return _hydra(argv, _nothing)
    if args.multirun:
        return _sweep(overrides, folders)
    if args.cfg:
        config.check_shown(overrides, folders)
        flags = [flag for flag, on in (("--resolve", args.resolve),) if on]
        flags += ["--package", args.package] if args.package else []
        return _hydra([*overrides, "--cfg", args.cfg, *flags], _nothing)
    return _single(config.check(overrides, folders), overrides, folders)


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


def _single(checked: Any, overrides: list[str], folders: list[Path]) -> int:
    from toolkit import build, config, ranks
    from toolkit.trainers.spec import processes

    if ranks.launched(checked):
        words = [word for word in overrides if not word.startswith("run_dir=")]
        arguments = _placed(words, checked.run_dir, folders)
        return ranks.launch(arguments, processes(checked.backend, checked.trainer), checked.run_dir)
    if ranks.started(checked):  # not the first of several, which alone shows what they do
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    build.isolate(checked.backend)
    from toolkit import job

    return job.execute(checked, config.plain(checked), overrides)


def _placed(words: Sequence[str], folder: str, folders: Sequence[Path]) -> list[str]:
    """Arguments of a run in a process of its own, whose results go into ``folder``."""
    quoted = folder.replace("'", "\\'")
    return [*words, f"run_dir='{quoted}'", *(part for extra in folders for part in ("--config-dir", str(extra)))]


def _sweep(overrides: list[str], folders: list[Path]) -> int:
    """Check every job, then run each in a process of its own: two frameworks must never share one."""
    from hydra.core.hydra_config import HydraConfig

    from toolkit import compose, config

    jobs = compose.variants(overrides)
    problems: list[str] = []
    for variant in jobs:
        try:
            config.check(variant, folders)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)), "the configs cannot be run:")
    failed: list[str] = []

    def task(_: Any) -> None:
        hydra = HydraConfig.get()
        number, words, folder = hydra.job.num, list(hydra.overrides.task), hydra.runtime.output_dir
        print(f"run {number + 1} of {len(jobs)}: {' '.join(words)} -> {folder}", flush=True)
        code = _child(_placed(words, folder, folders))
        if code:
            failed.append(f"exit code {code}: {' '.join(words)} -> {folder}")

    # in a sweep, run_dir holds a folder for each run
    moved = [
        f"hydra.sweep.dir={word.removeprefix('run_dir=')}" if word.startswith("run_dir=") else word
        for word in overrides
    ]
    compose.prepare(moved, folders)
    code = _hydra([*moved, "-m"], task)
    if failed:
        print(
            "\n".join([f"{len(failed)} of {len(jobs)} runs failed:", *(f"  {line}" for line in failed)]),
            file=sys.stderr,
        )
    return code or int(bool(failed))


def _child(arguments: list[str]) -> int:
    """Run one job of a sweep; signals that ask this process to stop are handed on, once, and stop the sweep.

    Returns:
        the exit code, as a shell gives it.

    Raises:
        SystemExit: the sweep was asked to stop.
    """
    from toolkit import ranks

    asked: list[int] = []
    process: subprocess.Popen[bytes] | None = None

    def hand_on(signum: int, _: Any) -> None:
        asked.append(signum)
        if process is not None:
            process.send_signal(signum)

    before = {signum: signal.signal(signum, hand_on) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        process = ranks.start(arguments)
        if asked:  # while it was made
            process.send_signal(asked[0])
        code = process.wait()
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
    if asked:
        raise SystemExit(128 + asked[0])
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    main()

"""``toolkit predict``: apply a trained run to inputs."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import sys
from collections.abc import Sequence

from toolkit.cli.guard import guarded
from toolkit.errors import ConfigError

SUMMARY = "apply a trained run to files or text"
USAGE = """\
usage: python -m toolkit predict RUN_FOLDER [KEY=VALUE ...] [--json] [--] INPUT...

Transcribes audio files, translates lines or classifies images with the best checkpoint of a run, in input order.

inputs
  FILE ...                  audio files or images
  TEXT ...                  for translation: lines, a file of lines, or - for standard input. The answer to
                            a blank line is a blank line

overrides
  backend=torch|tf          the framework; default: that of the training run
  task.FIELD=VALUE          decoding, such as task.decoder=beam
  allow=[PACKAGE]           use specs from a package of your own
  dataset.on_bad=drop       skip bad inputs, with a message
  trainer.batch_examples=N  batch size

flags
  --json                    one JSON object per line, with scores
  --                        the rest are inputs, even if they look like KEY=VALUE

exit codes
  0 done   1 failed   2 bad config or inputs

examples
  python -m toolkit predict outputs/asr/torch/2030-01-01_12-00-00 *.wav
  python -m toolkit predict outputs/translation/tf/2030-01-01_12-00-00 backend=torch < lines.txt -
"""


def main(argv: Sequence[str]) -> int:
    """Print the answers to the inputs and return the exit code."""
    if not argv or {"-h", "--help"} & set(argv[:1]):
        print(USAGE.rstrip())
        return 0
    return guarded(lambda: _main(argv))


def _main(argv: Sequence[str]) -> int:
    folder, overrides, inputs, as_json = _parse(argv)
    if not inputs:
        raise ConfigError("no input: give files, lines of text, or - for standard input")
    from toolkit.inference.load import load
    from toolkit.training.processes import own_temporary_folder

    own_temporary_folder()
    to_stderr = functools.partial(print, file=sys.stderr)
    model = load(folder, overrides=overrides, warn=to_stderr)
    for row in model(inputs, warn=to_stderr):
        print(json.dumps(row, ensure_ascii=False) if as_json else model.columns.input.answer.format(**row))
    return 0


def _parse(argv: Sequence[str]) -> tuple[str, list[str], list[str], bool]:
    """Parse the arguments; return the run folder, the overrides, the inputs, and whether JSON is wanted."""
    from toolkit.config.schema import Run

    keys = "|".join(f.name for f in dataclasses.fields(Run))
    overrides: list[str] = []
    inputs: list[str] = []
    as_json = False
    words = list(argv)
    while words:
        word = words.pop(0)
        if word == "--":
            inputs += words
            break
        if word == "--json":
            as_json = True
        elif re.match(rf"\+{{0,2}}({keys})(\.\w+)*=", word):
            overrides.append(word)
        elif word.startswith("--"):
            raise ConfigError(f"{word}: unknown flag, expected --json, or -- before inputs that begin with dashes")
        else:
            inputs.append(word)
    if not inputs:
        raise ConfigError("RUN_FOLDER: not given; predict RUN_FOLDER INPUT ...")
    return inputs[0], overrides, inputs[1:], as_json

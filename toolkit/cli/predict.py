"""``toolkit predict``: apply a trained run to inputs."""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING

from toolkit.cli.guard import guarded
from toolkit.config.paths import expand
from toolkit.data.problems import nearest
from toolkit.data.sources.lines import stream_lines
from toolkit.errors import ConfigError

if TYPE_CHECKING:
    from toolkit.tasks.spec import Row

SUMMARY = "apply a trained run to files or text"
USAGE = """\
usage: python -m toolkit predict RUN_FOLDER [KEY=VALUE ...] [--from FILE] [--json] [--] INPUT...

Transcribes audio files, translates lines or classifies images with the best checkpoint of a run: one line for
each input, in input order. An input that cannot be answered gets an empty answer, and a message on standard
error.

inputs
  FILE ...                  audio files or images, or folders of them
  TEXT ...                  for translation: lines, a file of lines, or - for standard input. The answer to
                            a blank line is a blank line
  --from FILE               inputs from a file, one per line; - is standard input

overrides
  backend=torch|tf          the framework; default: that of the training run
  task.FIELD=VALUE          decoding, such as task.decoder=beam
  allow=[PACKAGE]           use specs from a package of your own
  dataset.on_bad=drop       exit with 0 despite inputs that cannot be answered; refuse: answer none then
  trainer.batch_examples=N  batch size

flags
  --json                    one JSON object per line, with scores
  --                        the rest are inputs, even if they look like KEY=VALUE

exit codes
  0 done   1 failed   2 bad config, or some inputs could not be answered

examples
  python -m toolkit predict outputs/asr/torch/2030-01-01_12-00-00 *.wav
  python -m toolkit predict outputs/translation/tf/2030-01-01_12-00-00 backend=torch < lines.txt -
  find recordings -name "*.flac" | python -m toolkit predict outputs/asr/torch/2030-01-01_12-00-00 --from -
"""
POLICY = "dataset.on_bad="


@dataclass
class Arguments:
    """The command line.

    Args:
        folder: the run folder.
        overrides: of the run's config.
        inputs: given as words.
        lists: files of inputs.
        as_json: print JSON.
    """

    folder: str
    overrides: list[str] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    lists: list[str] = field(default_factory=list)
    as_json: bool = False


def main(argv: Sequence[str]) -> int:
    """Print the answers to the inputs and return the exit code."""
    if not argv or {"-h", "--help"} & set(argv[: argv.index("--")] if "--" in argv else argv):
        print(USAGE.rstrip())
        return 0
    return guarded(lambda: _main(argv))


def _main(argv: Sequence[str]) -> int:
    arguments = _parse(argv)
    if not arguments.inputs and not arguments.lists:
        raise ConfigError("no input: give files, lines of text, - for standard input, or --from FILE")
    words = [word.lstrip("+") for word in arguments.overrides[::-1]]
    policy = next((word.removeprefix(POLICY) for word in words if word.startswith(POLICY)), "")
    listed = [_lines(name) for name in arguments.lists]  # opened now, so that a wrong name is noticed first
    from toolkit.inference.load import load
    from toolkit.training.processes import own_temporary_folder

    own_temporary_folder()
    to_stderr = functools.partial(print, file=sys.stderr)
    model = load(arguments.folder, overrides=arguments.overrides, warn=to_stderr)
    # a text column reads the lines of a file itself, and takes none of them for the name of another file
    inputs = chain(arguments.inputs, *(listed if model.columns.input.decodes else [arguments.lists]))
    unanswered = 0
    _speak_utf8(arguments.as_json)
    for row in model.answers(inputs, "refuse" if policy == "refuse" else "drop", to_stderr):
        unanswered += "problem" in row
        text = json.dumps(row, ensure_ascii=False) if arguments.as_json else _line(model.columns.input.answer, row)
        print(text, flush=True)
    return 2 if unanswered and policy != "drop" else 0


def _parse(argv: Sequence[str]) -> Arguments:
    from toolkit.config.schema import Run

    names = [f.name for f in dataclasses.fields(Run)]
    keys = "|".join(names)
    arguments = Arguments("")
    words = iter(argv)
    for word in words:
        if word == "--":
            arguments.inputs += words
        elif word == "--json":
            arguments.as_json = True
        elif word == "--from" or word.startswith("--from="):
            name = next(words, "") if word == "--from" else word.removeprefix("--from=")
            if not name:
                raise ConfigError("--from: not given, expected a file of inputs, or - for standard input")
            arguments.lists.append(name)
        elif re.match(rf"\+{{0,2}}({keys})(\.\w+)*=", word):
            arguments.overrides.append(word)
        elif (other := re.match(r"\+{0,2}(\w+)(\.\w+)*=", word)) and (meant := nearest(other[1], names)):
            raise ConfigError(f"{word}: unknown key; an input like this goes behind --{meant}")
        elif word.startswith("--"):
            expected = "expected --json, --from FILE, or -- before inputs that begin with dashes"
            raise ConfigError(f"{word}: unknown flag, {expected}")
        else:
            arguments.inputs.append(word)
    if not arguments.inputs:
        raise ConfigError("RUN_FOLDER: not given; predict RUN_FOLDER INPUT ...")
    arguments.folder = arguments.inputs.pop(0)
    return arguments


def _lines(name: str) -> Iterator[str]:
    """Open a list of inputs, which is read as they are needed."""
    if name == "-":
        return stream_lines(sys.stdin.buffer, "standard input")
    try:
        return stream_lines(open(expand(name), "rb"), name)  # closed with the process
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"--from {name}: {reason}, expected a file with an input on each line") from None


def _speak_utf8(as_json: bool) -> None:
    """Make standard output UTF-8 whatever the locale; names that are not UTF-8 keep their bytes, or JSON escapes."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace" if as_json else "surrogateescape")


def _line(template: str, row: Row) -> str:
    """Return an answer as one line: control characters in the name of a file are escaped."""
    name = re.sub(r"[\0-\x1f\x7f]", lambda match: repr(match[0])[1:-1], row["id"])
    return template.format(**row | {"id": name})

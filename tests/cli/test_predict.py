"""The command ``predict`` around a stand-in for the model."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from toolkit.cli import predict
from toolkit.cli.predict import Arguments, _parse, main
from toolkit.errors import ConfigError
from toolkit.inference import load


class Echo:
    """A model that answers with the first character, in capitals, and cannot answer ``bad``."""

    columns = SimpleNamespace(input=SimpleNamespace(answer="{id}\t{hypothesis}", decodes=True))

    def __init__(self) -> None:
        self.policies: list[str] = []

    def answers(self, inputs: Iterable[str], on_bad: str, warn: Any) -> Iterator[dict[str, Any]]:
        self.policies.append(on_bad)
        for name in inputs:
            row = {"id": name, "hypothesis": name[:1].upper(), "score": 0.0}
            yield row if name != "bad" else row | {"hypothesis": "", "problem": "bad"}


@pytest.fixture(autouse=True)
def echo(monkeypatch: pytest.MonkeyPatch) -> Echo:
    model = Echo()
    monkeypatch.setattr(load, "load", lambda *_, **__: model)
    return model


def test_flags_and_overrides_may_stand_before_the_run_folder() -> None:
    words = ["--json", "backend=tf", "--from", "list", "run", "a.wav", "--from=-", "--", "--json"]
    assert _parse(words) == Arguments("run", ["backend=tf"], ["a.wav", "--json"], ["list", "-"], True)
    with pytest.raises(ConfigError, match="RUN_FOLDER: not given"):
        _parse(["--json"])
    with pytest.raises(ConfigError, match="--from: not given"):
        _parse(["run", "--from"])


@pytest.mark.parametrize(
    "policy, code, on_bad",
    [
        ([], 2, "drop"),
        (["dataset.on_bad=drop"], 0, "drop"),
        (["dataset.on_bad=refuse"], 2, "refuse"),
        (["++dataset.on_bad=drop"], 0, "drop"),
    ],
)
def test_the_exit_code_tells_whether_all_were_answered(
    policy: list[str], code: int, on_bad: str, echo: Echo, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", *policy, "a", "bad", "c"]) == code and echo.policies == [on_bad]
    assert capsys.readouterr().out == "a\tA\nbad\t\nc\tC\n"
    assert main(["run", *policy, "a"]) == 0


def test_inputs_come_from_a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    (tmp_path / "list").write_bytes(b"\xef\xbb\xbfa b.wav\r\n\n--json\n")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"c.wav\nd.wav")))
    assert main(["run", "first", "--from", str(tmp_path / "list"), "--from", "-"]) == 0
    names = [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()]
    assert names == ["first", "a b.wav", "", "--json", "c.wav", "d.wav"]


def test_a_list_of_texts_is_read_by_their_column(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Echo.columns.input, "decodes", False)
    (tmp_path / "list").write_text("-\nREADME\n")
    assert main(["run", "--from", str(tmp_path / "list")]) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'list'}\t")


@pytest.mark.parametrize(
    "content, message",
    [(None, "No such file or directory, expected a file with an input on each line"), (b"\xff\xfea\0", "UTF-16")],
)
def test_a_list_that_cannot_be_read_is_one_line(
    content: bytes | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content:
        (tmp_path / "list").write_bytes(content)
    assert main(["run", "--from", str(tmp_path / "list")]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_many_inputs_are_answered_as_they_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "list").write_text("".join(f"{number}.wav\n" for number in range(50_000)))
    assert main(["run", "--from", str(tmp_path / "list")]) == 0
    assert capsys.readouterr().out.endswith("49999.wav\t4\n")


def test_an_answer_is_one_line_whatever_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["new\nline", "caf\udce9", "日本"]
    for flags, expected in (([], "new\\nline\t"), (["--json"], None)):
        stream = io.TextIOWrapper(io.BytesIO(), "ascii")
        monkeypatch.setattr(sys, "stdout", stream)
        assert main(["run", *flags, "--", *names]) == 0
        lines = stream.buffer.getvalue().splitlines()  # type: ignore[attr-defined]
        assert len(lines) == 3
        if expected is None:
            assert [json.loads(line)["id"] for line in lines] == names
        else:
            assert lines[0].decode().startswith(expected) and lines[1].startswith(b"caf\xe9\t")


def test_usage_names_the_flags() -> None:
    assert "--from FILE" in predict.USAGE and "dataset.on_bad=drop" in predict.USAGE

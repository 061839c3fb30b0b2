"""The libraries of the hub against a stand-in of it: every dataset that is loaded from there, and what may go wrong."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.hub import STRING
from tests.support.hub_layouts import card, parquet, repositories
from tests.support.hub_server import PARQUET, STRANGER, TOKEN, Client, Hub, Repository

WMT14, IMAGENET, LIBRISPEECH = "parallel_hub.WMT14", "imagenet.ImageNet", "librispeech.LibriSpeech"
SPLITS = ("train", "validation", "test")
TRAIN = [f"train-0000{i}-of-00003" for i in range(3)]
# dataset -> number of examples of each split, and the files that they are in
LOADED: dict[str, tuple[tuple[int, ...], list[str]]] = {
    LIBRISPEECH: (
        (8, 4, 4),
        ["clean/test/0000", "clean/train.100/0000", "clean/train.100/0001", "clean/validation/0000"],
    ),
    "common_voice.CommonVoice": (
        (8, 4, 4),
        ["en/test-00000-of-00001", *(f"en/train-0000{i}-of-00002" for i in (0, 1)), "en/validation-00000-of-00001"],
    ),
    "speech_commands.SpeechCommands": ((2, 2, 2), [f"v0.02/{split}/0000" for split in sorted(SPLITS)]),
    "parallel_hub.IWSLT": ((6, 6, 6), [f"iwslt2017-de-en/{split}/0000" for split in sorted(SPLITS)]),
    WMT14: (
        (6, 6, 6),
        [f"de-en/{name}" for name in ("test-00000-of-00001", *TRAIN, "validation-00000-of-00001")],
    ),
    "parallel_hub.Multi30k": ((6, 6, 6), [f"default/{split}/0000" for split in sorted(SPLITS)]),
    "parallel_hub.Tatoeba": ((18, 1, 1), ["en-de/train-00000-of-00001"]),
    IMAGENET: ((12, 0, 4), [*(f"data/{name}" for name in TRAIN), "data/validation-00000-of-00001"]),
    "cifar.CIFAR10": ((4, 0, 4), [f"plain_text/{split}-00000-of-00001" for split in ("test", "train")]),
    "cifar.CIFAR100": ((4, 0, 4), [f"cifar100/{split}-00000-of-00001" for split in ("test", "train")]),
    "mnist.MNIST": ((4, 0, 4), [f"mnist/{split}-00000-of-00001" for split in ("test", "train")]),
}
STREAMED = [name for name in LOADED if not name.startswith(("cifar", "mnist")) and "Tatoeba" not in name]


@pytest.fixture(scope="module")
def running() -> Iterator[Hub]:
    with Hub(repositories()) as hub:
        yield hub


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The caches of all clients."""
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module")
def client(running: Hub, folder: Path) -> Iterator[Client]:
    with Client(running, folder) as client:
        yield client


@pytest.fixture
def hub(running: Hub) -> Hub:
    running.forget()
    return running


def fetched(hub: Hub) -> list[str]:
    """The data files whose content was asked for, without commit and suffix."""
    names = {request.path.split("/resolve/")[1].partition("/")[2] for request in hub.contents()}
    return sorted(name.removesuffix(".parquet") for name in names)


def split_texts(answer: dict[str, Any], split: str) -> list[list[str]]:
    """The values of a split; ids of texts differ in a stream."""
    return [example[1:] for example in answer["examples"].get(split, [])]


@pytest.mark.parametrize("name", LOADED)
def test_a_dataset_is_loaded_from_the_hub(name: str, hub: Hub, client: Client) -> None:
    counts, files = LOADED[name]
    loaded = client.load(name, token=TOKEN)
    assert "error" not in loaded, loaded
    assert tuple(len(split_texts(loaded, split)) for split in SPLITS) == counts
    assert set(loaded["examples"]) <= set(SPLITS)
    assert fetched(hub) == files
    hub.forget()
    if name not in STREAMED:
        return
    streamed = client.load(name, token=TOKEN, streaming=True)
    assert "error" not in streamed, streamed
    assert fetched(hub) == [file for file in files if "train" in file]
    train = split_texts(streamed, "train")
    if name == IMAGENET:  # a stream sets whole files apart
        assert len(split_texts(streamed, "validation")) == 4
        train += split_texts(streamed, "validation")
    else:
        assert split_texts(streamed, "validation") == split_texts(loaded, "validation")
    assert sorted(train) == sorted(split_texts(loaded, "train"))
    assert split_texts(streamed, "test") == split_texts(loaded, "test")


def test_a_second_start_fetches_nothing(hub: Hub, client: Client) -> None:
    loaded = client.load("cifar.CIFAR10")
    hub.forget()
    assert client.load("cifar.CIFAR10")["examples"] == loaded["examples"]
    assert fetched(hub) == [] and hub.requests


@pytest.mark.parametrize("streaming", [False, True])
def test_access_that_is_not_granted_is_one_line(streaming: bool, hub: Hub, client: Client) -> None:
    hub.repositories["secret/imagenet"] = hub.repositories["ILSVRC/imagenet-1k"]
    page = f"{hub.address}/datasets/secret/imagenet"
    login = "log in by `hf auth login` or set HF_TOKEN"
    path = "or set dataset.path=FOLDER to a local copy"
    expected = {
        "": f"access to it needs a login; accept the terms at {page}, and {login}, {path}",
        STRANGER: f"access is not granted to this account; accept the terms at {page}, {path}",
        "hf_expired": f"the hub refuses the token found here; {login}, with a valid one, {path}",
    }
    for token, message in expected.items():
        answer = client.load(IMAGENET, token=token, repository="secret/imagenet", streaming=streaming)
        assert answer == {
            "error": f"secret/imagenet train: not in the cache, and {message}",
            "kind": "DataError",
            "waited": 0,
        }


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        (
            WMT14,
            {"repository": "wmt/wmt41"},
            "wmt/wmt41 de-en train: .* found no such repository on the hub; check the",
        ),
        (
            WMT14,
            {"revision": "v9"},
            "wmt/wmt14 de-en train: found no revision v9, expected a branch, a tag or a commit",
        ),
        ("common_voice.CommonVoice", {"language": "xx"}, "found no configuration xx, expected one of en"),
        (LIBRISPEECH, {"train": "train.10"}, r"train.10: found no such split, expected .*; did you mean 'train.100'\?"),
        ("parallel_hub.IWSLT", {"target": "it"}, f"no data files of the configuration iwslt2017-de-it at {PARQUET}"),
        ("parallel_hub.IWSLT", {"revision": "main"}, f"a loading script, .* set dataset.revision={PARQUET}"),
    ],
)
def test_what_is_not_on_the_hub_is_one_line(
    name: str, fields: dict[str, str], message: str, hub: Hub, client: Client
) -> None:
    for streaming in (False, True):
        answer = client.load(name, streaming=streaming, **fields)
        assert (answer["kind"], answer["waited"]) == ("DataError", 0)
        assert re.search(message, answer["error"]) and "\n" not in answer["error"], answer["error"]


def test_a_branch_and_a_commit_are_revisions(hub: Hub, client: Client) -> None:
    features = {"english": STRING, "non_english": STRING}
    branches = {
        branch: {"en-de/train-0.parquet": parquet([{"english": branch, "non_english": "x"}] * 3, features)}
        | {"README.md": card({"en-de": {"train": "en-de/train-*"}})}
        for branch in ("main", "v1", "v2")
    }
    hub.repositories["tatoeba/versions"] = Repository(branches)
    commit = hub.repositories["tatoeba/versions"].commit("v2")
    for revision, word in ((None, "main"), ("v1", "v1"), (commit, "v2"), (None, "main")):
        answer = client.load("parallel_hub.Tatoeba", repository="tatoeba/versions", revision=revision)
        assert {text for text, _ in split_texts(answer, "train")} == {word}


def test_a_connection_that_breaks_is_resumed(hub: Hub, client: Client) -> None:
    hub.repositories["wmt/breaking"] = hub.repositories["wmt/wmt14"]
    file = "train-00001-of-00003.parquet"
    hub.faults.breaks[file] = deque([600])
    answer = client.load(WMT14, repository="wmt/breaking")
    assert answer["examples"] == client.load(WMT14)["examples"] and answer["waited"] == 1
    ranges = [request.range for request in hub.contents() if request.path.endswith(file)]
    assert ranges == ["", "bytes=512-"]  # two chunks had arrived
    hub.faults.breaks[file] = deque([600])
    streamed = client.load(WMT14, repository="wmt/breaking", streaming=True)
    assert len(split_texts(streamed, "train")) == 6 and streamed["waited"] == 1


def test_nothing_of_a_file_that_never_arrives_is_used(hub: Hub, client: Client) -> None:
    hub.repositories["wmt/broken"] = hub.repositories["wmt/wmt14"]
    file = "train-00001-of-00003.parquet"
    hub.faults.breaks[file] = deque([0] * 50)
    answer = client.load(WMT14, repository="wmt/broken")
    assert answer["kind"] == "DataError" and answer["waited"] <= 5 and "\n" not in answer["error"]
    assert answer["error"].startswith("wmt/broken de-en train: could not be loaded (RemoteProtocolError: ")
    streamed = client.load(WMT14, repository="wmt/broken", streaming=True)
    assert f"wmt/broken de-en train, {file}, record 0: cannot be read (RemoteProtocolError" in streamed["error"]
    assert streamed["error"].endswith("; check the network, then resume or start again")
    hub.forget()
    assert client.load(WMT14, repository="wmt/broken")["examples"] == client.load(WMT14)["examples"]
    assert "de-en/train-00000-of-00003.parquet" not in fetched(hub)  # it had arrived


def test_a_server_error_passes_or_is_one_line(hub: Hub, client: Client) -> None:
    hub.repositories["wmt/busy"] = hub.repositories["wmt/wmt14"]
    hub.faults.status["auth-check"] = deque([503] * 50)
    answer = client.load(WMT14, repository="wmt/busy")
    assert answer["error"] == (
        f"wmt/busy de-en train: not in the cache, and {hub.address} answers with error 503; try again later, or set "
        "dataset.path=FOLDER to a local copy"
    )
    assert answer["waited"] == 3
    hub.forget()
    hub.faults.status |= {"README.md": deque([503] * 50)}
    answer = client.load(WMT14, repository="wmt/busy")
    assert "wmt/busy de-en train: could not be loaded (LocalEntryNotFoundError: " in answer["error"]
    hub.forget()
    hub.faults.status |= {name: deque([503]) for name in ("auth-check", "README.md", "train-00002-of-00003.parquet")}
    hub.faults.status["README.md"].append(503)
    answer = client.load(WMT14, repository="wmt/busy")
    assert answer.get("examples") == client.load(WMT14)["examples"] and answer["waited"] <= 4


def test_a_hub_that_cannot_be_reached_counts_as_offline(hub: Hub, client: Client) -> None:
    loaded = client.load(WMT14)
    hub.down = True
    answer = client.load(WMT14)
    assert answer["examples"] == loaded["examples"] and answer["waited"] <= 9  # 3 s for each split
    answer = client.load(WMT14, repository="wmt/never")
    assert answer["waited"] == 3 and answer["error"].startswith(
        f"wmt/never de-en train: not in the cache, and {hub.address} cannot be reached (RemoteProtocolError: "
    )


def test_offline_the_cache_is_used(hub: Hub, folder: Path, client: Client) -> None:
    names = (WMT14, "parallel_hub.Multi30k", IMAGENET)
    loaded = [client.load(name, token=TOKEN)["examples"] for name in names]
    hub.forget()
    with Client(hub, folder, HF_HUB_OFFLINE="1") as offline:
        assert [offline.load(name).get("examples") for name in names] == loaded
        other = offline.load(WMT14, revision="v1")
        assert other["error"] == (
            "wmt/wmt14 de-en train: not in the cache, and HF_HUB_OFFLINE is set; unset it once, or set "
            "dataset.path=FOLDER to a local copy"
        )
        assert (
            "a stream is read from the hub, which is not available now" in offline.load(WMT14, streaming=True)["error"]
        )
    assert hub.requests == []

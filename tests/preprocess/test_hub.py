"""Models come from this machine when they are here, else from the hub, else with an error of one line in seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants

from preprocess import hub
from preprocess.errors import HubError, PreprocessError

Load = Callable[[bool], str]


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Returns the models that the hub is asked for from now on; it has all of them."""
    asked: list[str] = []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda api, source, timeout: asked.append(source))
    return asked


def loader(*places: str, fails: Exception | None = None) -> Load:
    """Returns a function that loads from some places ("here", "hub"), and fails elsewhere."""

    def load(local: bool) -> str:
        place = "here" if local else "hub"
        if place in places:
            return place
        raise fails or FileNotFoundError("no file named config.json in it.\nand much more")

    return load


def test_what_is_here_needs_no_hub(online: list[str]) -> None:
    assert hub.fetch(loader("here", "hub"), ["owner/model"], False) == "here"
    assert online == []


def test_what_is_not_here_is_asked_for_and_loaded(online: list[str], tmp_path: Path) -> None:
    assert hub.fetch(loader("hub"), ["owner/model", str(tmp_path), "owner/net"], False) == "hub"
    assert online == ["owner/model", "owner/net"]


@pytest.mark.parametrize("offline", [True, False])
def test_offline_is_obeyed(monkeypatch: pytest.MonkeyPatch, online: list[str], offline: bool) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", not offline)
    with pytest.raises(HubError, match=r"^'o/m' or 'o/net' has not been downloaded and downloads are off$"):
        hub.fetch(loader("hub"), ["o/m", "o/net"], offline)
    with pytest.raises(HubError, match=r"^'o/m' cannot be used: of another kind$"):
        hub.fetch(loader("hub", fails=ValueError("of another kind.")), ["o/m"], offline)
    assert online == []


def test_folders_are_never_asked_for(online: list[str], tmp_path: Path) -> None:
    with pytest.raises(HubError, match=r"cannot be used: no file named config\.json in it$") as error:
        hub.fetch(loader(), [str(tmp_path)], False)
    assert isinstance(error.value, PreprocessError)
    assert online == []


def test_what_the_hub_gives_may_be_of_another_kind(online: list[str]) -> None:
    with pytest.raises(HubError, match=r"^'o/m' cannot be used: of another kind$"):
        hub.fetch(loader(fails=ValueError("of another kind")), ["o/m"], False)


def test_an_unreachable_hub_costs_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    start = time.monotonic()
    with pytest.raises(HubError, match=r"'o/m' has not been downloaded and the hub cannot be reached \(\w+\); connect"):
        hub.fetch(loader("hub"), ["o/m"], False)
    assert time.monotonic() - start < 2 * hub.ANSWER_SECONDS


def test_a_name_that_the_hub_cannot_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(HubError, match=r"the hub does not give 'o/m/n'"):
        hub.fetch(loader("hub"), ["o/m/n"], False)

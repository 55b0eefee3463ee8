"""Loading models: from this machine, else from the hub, else an error of one line within seconds."""

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
def requests(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the ids of all later requests to a hub that has every model."""
    requests: list[str] = []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda api, source, timeout: requests.append(source))
    return requests


def loader(*places: str, fails: Exception | None = None) -> Load:
    """Return a function that loads from the given places ("here", "hub"), and fails elsewhere."""

    def load(local: bool) -> str:
        place = "here" if local else "hub"
        if place in places:
            return place
        raise fails or FileNotFoundError("no file named config.json in it.\nand much more")

    return load


def test_local_models_need_no_hub(requests: list[str]) -> None:
    assert hub.fetch(loader("here", "hub"), ["owner/model"], False) == "here"
    assert requests == []


def test_missing_models_are_downloaded(requests: list[str], tmp_path: Path) -> None:
    assert hub.fetch(loader("hub"), ["owner/model", str(tmp_path), "owner/net"], False) == "hub"
    assert requests == ["owner/model", "owner/net"]


@pytest.mark.parametrize("offline", [True, False])
def test_offline_never_accesses_the_hub(monkeypatch: pytest.MonkeyPatch, requests: list[str], offline: bool) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", not offline)
    with pytest.raises(HubError, match=r"^'o/m' or 'o/net' has not been downloaded and downloads are off$"):
        hub.fetch(loader("hub"), ["o/m", "o/net"], offline)
    with pytest.raises(HubError, match=r"^'o/m' cannot be used: of another kind$"):
        hub.fetch(loader("hub", fails=ValueError("of another kind.")), ["o/m"], offline)
    assert requests == []


def test_folders_are_never_requested_from_the_hub(requests: list[str], tmp_path: Path) -> None:
    with pytest.raises(HubError, match=r"cannot be used: no file named config\.json in it$") as error:
        hub.fetch(loader(), [str(tmp_path)], False)
    assert isinstance(error.value, PreprocessError)
    assert requests == []


def test_a_downloaded_model_of_another_type_is_an_error(requests: list[str]) -> None:
    with pytest.raises(HubError, match=r"^'o/m' cannot be used: of another kind$"):
        hub.fetch(loader(fails=ValueError("of another kind")), ["o/m"], False)


def test_an_unreachable_hub_fails_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    start = time.monotonic()
    with pytest.raises(HubError, match=r"'o/m' has not been downloaded and the hub cannot be reached \(\w+\); connect"):
        hub.fetch(loader("hub"), ["o/m"], False)
    assert time.monotonic() - start < 2 * hub.ANSWER_SECONDS


def test_an_invalid_hub_id_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(HubError, match=r"the hub does not give 'o/m/n'"):
        hub.fetch(loader("hub"), ["o/m/n"], False)

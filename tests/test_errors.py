"""Errors of `preprocess` become SyncControl's in one place."""

import pytest

import preprocess
from preprocess.errors import FormatError, HubError
from synccontrol.errors import ConfigError, InputError, ModelError, SyncControlError, translated


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (preprocess.OptionError, ConfigError),
        (preprocess.DetectorError, ModelError),
        (HubError, ModelError),
        (preprocess.PictureError, InputError),
        (FormatError, InputError),
    ],
)
def test_every_error_has_its_counterpart(theirs: type[Exception], ours: type[SyncControlError]) -> None:
    with pytest.raises(ours, match="what, why") as error, translated():
        raise theirs("what, why")
    assert isinstance(error.value.__cause__, theirs)


def test_functions_are_wrapped_for_all_their_calls() -> None:
    detect = translated()(preprocess.load("canny"))
    for _ in range(2):
        with pytest.raises(InputError, match="is a path"):
            detect("guide.png")


def test_other_errors_pass() -> None:
    with pytest.raises(KeyError), translated():
        raise KeyError("x")

"""How the page is served: to this machine alone, unless others are asked for, with a password."""

import pytest

from synccontrol.errors import ConfigError
from synccontrol.studio.__main__ import main
from synccontrol.studio.options import PASSWORD, parsed
from synccontrol.studio.queue import Limits


def test_defaults_are_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PASSWORD, raising=False)
    options = parsed([], "app")
    assert (options.host, options.share, options.password, options.models) == ("127.0.0.1", False, "", ("tiny",))
    assert options.limits == Limits()


@pytest.mark.parametrize("flags", [["--host", "0.0.0.0"], ["--share"], ["--host", "192.168.1.7"]])
def test_others_come_in_with_a_password_only(flags: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PASSWORD, raising=False)
    for password in ("", "short"):
        monkeypatch.setenv(PASSWORD, password)
        with pytest.raises(ConfigError, match=f"needs a password: set {PASSWORD}"):
            parsed(flags, "app")
    monkeypatch.setenv(PASSWORD, "long enough")
    assert parsed(flags, "app").password == "long enough"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--port", "0"], "--port is 0"),
        (["--root-path", "x"], "--root-path is 'x'"),
        (["--max-queue", "0"], "max queue is 0"),
        (["--max-queue", "some"], "invalid int"),
        (["--device", "abacus"], "abacus"),
    ],
)
def test_wrong_flags_are_one_line(flags: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(flags) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and said in error


def test_limits_and_models_are_flags() -> None:
    options = parsed(["--max-canvas", "2", "--model", "tiny", "--model", "sd15", "--offline"], "app")
    assert options.limits.canvas == 2 and options.models == ("tiny", "sd15") and options.machine["offline"]

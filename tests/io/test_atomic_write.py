"""Atomic writes: files appear complete or not at all, and replace no existing file by default."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import pytest

from synccontrol.errors import OutputError
from synccontrol.io import atomic_write


def writer(text: bytes) -> atomic_write.Write:
    return lambda file: file.write(text)


def test_a_file_that_appears_in_the_meantime_stays(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.png"

    def slow(file: BinaryIO) -> None:
        file.write(b"mine")
        path.write_bytes(b"theirs")  # another process is faster

    with pytest.raises(OutputError, match="exists; name another"):
        atomic_write.publish(path, slow)
    assert path.read_bytes() == b"theirs"
    atomic_write.publish(path, writer(b"mine"), overwrite=True)
    assert path.read_bytes() == b"mine"
    assert list(path.parent.iterdir()) == [path]


def test_a_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    atomic_write.publish(tmp_path / "a.png", writer(b"one"))
    with pytest.raises(OutputError, match="exists"):
        atomic_write.publish(tmp_path / "a.png", writer(b"two"))
    assert (tmp_path / "a.png").read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [tmp_path / "a.png"]


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        atomic_write.publish(tmp_path / "a.png", writer(b""))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.png").stat().st_mode) == 0o640


def test_a_killed_run_leaves_no_partial_output(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from synccontrol.io import atomic_write\n"
        "def write(file): file.write(b'half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
        f"atomic_write.publish(Path({str(tmp_path / 'a.png')!r}), write)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == -signal.SIGKILL
    assert [path.suffix for path in tmp_path.iterdir()] == [atomic_write.PART]


def test_an_error_while_writing_leaves_nothing(tmp_path: Path) -> None:
    def fail(file: BinaryIO) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="No space left on device"):
        atomic_write.publish(tmp_path / "a.png", fail)
    assert not list(tmp_path.iterdir())


def test_an_output_that_is_an_input_is_refused_under_every_name(tmp_path: Path) -> None:
    guide = tmp_path / "guide.png"
    guide.write_bytes(b"")
    (tmp_path / "soft.png").symlink_to(guide)
    (tmp_path / "hard.png").hardlink_to(guide)
    for name in ("guide.png", "soft.png", "hard.png", "../" + tmp_path.name + "/guide.png"):
        with pytest.raises(OutputError, match="is an input"):
            atomic_write.check_not_inputs([tmp_path / name], [guide])
    atomic_write.check_not_inputs([tmp_path / "other.png"], [guide, tmp_path / "missing.png"])

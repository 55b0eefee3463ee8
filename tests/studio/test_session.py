"""Sessions: own folders, a bounded history, and images that only their browser gets."""

from pathlib import Path

import pytest

from synccontrol.studio.queue import BusyError, Limits
from synccontrol.studio.session import Entry, Session, Sessions

LIMITS = Limits(visitors=2, history=2)


def add(session: Session) -> Entry:
    path = session.place() / "a.png"
    path.write_bytes(b"x")
    return session.add(path, {}, (), "")


def test_a_picture_is_served_to_its_browser_alone() -> None:
    sessions = Sessions(LIMITS)
    mine = add(sessions.of("page", "my key"))
    assert sessions.image_file(mine.token, "my key") == mine.path
    assert sessions.image_file(mine.token, "another key") is None
    assert sessions.image_file(mine.token, "") is None
    assert sessions.image_file("", "my key") is None
    program = add(sessions.of("program", ""))
    assert sessions.image_file(program.token, "") is None  # without a cookie nothing is anybody's
    sessions.close()


def test_a_session_that_another_browser_claims_is_not_given_away() -> None:
    sessions = Sessions(LIMITS)
    mine = sessions.of("page", "my key")
    assert sessions.of("page", "my key") is mine
    other = sessions.of("page", "another key")
    assert other is not mine and other.folder != mine.folder
    sessions.close()


def test_too_many_pages_are_refused_until_one_is_closed() -> None:
    sessions = Sessions(LIMITS)
    first = sessions.of("1", "a")
    sessions.of("2", "b")
    with pytest.raises(BusyError, match="2 pages are open already"):
        sessions.of("3", "c")
    add(first)
    sessions.leave("1")
    assert not first.folder.exists()
    sessions.of("3", "c")
    root = sessions.root
    sessions.close()
    assert not root.exists()


def test_the_oldest_picture_goes_first(tmp_path: Path) -> None:
    session = Session("key", tmp_path, LIMITS)
    entries = [add(session) for _ in range(3)]
    assert list(session.entries) == [entry.token for entry in entries[1:]]
    assert [entry.path.exists() for entry in entries] == [False, True, True]
    assert len({entry.token for entry in entries}) == 3 and len(entries[0].token) >= 32

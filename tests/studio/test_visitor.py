"""Visitors: folders of their own, a bounded history, and nobody else's pictures."""

from pathlib import Path

import pytest

from synccontrol.studio.queue import BusyError, Limits
from synccontrol.studio.session import Entry, Visitor, Visitors

LIMITS = Limits(visitors=2, history=2)


def add(visitor: Visitor) -> Entry:
    path = visitor.place() / "a.png"
    path.write_bytes(b"x")
    return visitor.add(path, {}, (), "")


def test_a_picture_is_served_to_its_browser_alone() -> None:
    visitors = Visitors(LIMITS)
    mine = add(visitors.of("page", "my key"))
    assert visitors.picture(mine.token, "my key") == mine.path
    assert visitors.picture(mine.token, "another key") is None
    assert visitors.picture(mine.token, "") is None
    assert visitors.picture("", "my key") is None
    program = add(visitors.of("program", ""))
    assert visitors.picture(program.token, "") is None  # without a cookie nothing is anybody's
    visitors.close()


def test_a_session_that_another_browser_claims_is_not_given_away() -> None:
    visitors = Visitors(LIMITS)
    mine = visitors.of("page", "my key")
    assert visitors.of("page", "my key") is mine
    other = visitors.of("page", "another key")
    assert other is not mine and other.folder != mine.folder
    visitors.close()


def test_too_many_pages_are_refused_until_one_is_closed() -> None:
    visitors = Visitors(LIMITS)
    first = visitors.of("1", "a")
    visitors.of("2", "b")
    with pytest.raises(BusyError, match="2 pages are open already"):
        visitors.of("3", "c")
    add(first)
    visitors.leave("1")
    assert not first.folder.exists()
    visitors.of("3", "c")
    root = visitors.root
    visitors.close()
    assert not root.exists()


def test_the_oldest_picture_goes_first(tmp_path: Path) -> None:
    visitor = Visitor("key", tmp_path, LIMITS)
    entries = [add(visitor) for _ in range(3)]
    assert list(visitor.entries) == [entry.token for entry in entries[1:]]
    assert [entry.path.exists() for entry in entries] == [False, True, True]
    assert len({entry.token for entry in entries}) == 3 and len(entries[0].token) >= 32

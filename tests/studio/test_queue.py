"""The queue: first come, first served; places; stopping; and that it never grows beyond its limits."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from synccontrol.studio import messages
from synccontrol.studio.queue import ENDED, GENERATING, WAITING, BusyError, JobQueue, Limits, Stopped, Ticket

LIMITS = Limits(queue=5, each=3)


def until(true: Callable[[], bool]) -> None:
    """Waits until something is so."""
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


class Held:
    """Work that goes on, checking between its steps, until it is let go."""

    def __init__(self) -> None:
        self.gate, self.done = threading.Event(), list[Any]()

    def __call__(self, ticket: Ticket) -> str:
        while not self.gate.wait(0.005):
            ticket.check()
            ticket.step += 1
        self.done.append(ticket.owner)
        return ticket.owner


@pytest.fixture
def work() -> Held:
    return Held()


def test_one_at_a_time_and_in_order(work: Held) -> None:
    queue = JobQueue(LIMITS)
    tickets = [Ticket(owner, work) for owner in "abcd"]
    for ticket in tickets:
        queue.put(ticket)
    until(lambda: tickets[0].step > 0)
    assert [queue.ahead(ticket) for ticket in tickets] == [0, 1, 2, 3]
    assert [ticket.state for ticket in tickets[1:]] == [WAITING] * 3
    work.gate.set()
    until(lambda: all(ticket.state == ENDED for ticket in tickets))
    assert work.done == list("abcd") == [ticket.result for ticket in tickets]


def test_more_than_the_limits_are_refused(work: Held) -> None:
    queue = JobQueue(LIMITS)
    for _ in range(3):
        queue.put(Ticket("a", work))
    with pytest.raises(BusyError, match="3 images of yours"):
        queue.put(Ticket("a", work))
    queue.put(Ticket("b", work))
    queue.put(Ticket("c", work))
    with pytest.raises(BusyError, match="5 images are in the queue"):
        queue.put(Ticket("d", work))
    work.gate.set()


def test_stopping_ends_what_is_drawn_and_what_waits_of_one_visitor_only(work: Held) -> None:
    queue = JobQueue(LIMITS)
    mine, other, waiting = Ticket("a", work), Ticket("b", work), Ticket("a", work)
    for ticket in (mine, other, waiting):
        queue.put(ticket)
    until(lambda: mine.step > 0)
    assert queue.stop("a") == 2
    assert waiting.state == ENDED and isinstance(waiting.error, Stopped)
    until(lambda: mine.state == ENDED)
    assert isinstance(mine.error, Stopped) and mine.result is None
    until(lambda: other.step > 0)
    work.gate.set()
    until(lambda: other.state == ENDED)
    assert other.error is None
    assert queue.stop("a") == 0


def test_work_that_fails_is_kept_and_the_line_goes_on() -> None:
    queue = JobQueue(LIMITS)
    failing, following = Ticket("a", lambda ticket: 1 / 0), Ticket("b", lambda ticket: "done")
    queue.put(failing)
    queue.put(following)
    until(lambda: following.state == ENDED)
    assert isinstance(failing.error, ZeroDivisionError)
    assert following.result == "done"


def test_the_time_that_is_left_is_that_of_the_work_so_far() -> None:
    ticket = Ticket("a", lambda ticket: None)
    assert ticket.seconds_left is None
    ticket.state = GENERATING
    ticket.begin(6)
    ticket.report(5, 6, 0.25)  # cheap steps
    ticket._began -= 3.0
    assert ticket.seconds_left == pytest.approx(9.0, abs=0.5)


def test_closing_stops_all_and_waits_for_the_step(work: Held) -> None:
    queue = JobQueue(LIMITS)
    tickets = [Ticket(owner, work) for owner in "ab"]
    for ticket in tickets:
        queue.put(ticket)
    until(lambda: tickets[0].step > 0)
    queue.close()
    assert all(ticket.state == ENDED and isinstance(ticket.error, Stopped) for ticket in tickets)


def test_the_time_left_follows_from_the_share_that_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    ticket = Ticket("a", lambda _: None)
    assert ticket.seconds_left is None
    clock = iter((100.0, 110.0))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    ticket.begin(8)
    ticket.state = GENERATING
    assert ticket.seconds_left is None  # before the first step
    ticket.report(2, 8, 0.25)
    assert ticket.seconds_left == 30.0  # a quarter took 10 s


def test_progress_between_two_looks_says_that_it_ends() -> None:
    ended = Ticket("a", lambda _: None)
    ended.run()
    assert messages.progress([ended], [0]) == {"text": "finishing", "done": 1.0, "error": False, "busy": True}
    waiting = [ended, Ticket("a", lambda _: None)]
    assert messages.progress(waiting, [0, 3])["text"] == "Image 2 of 2: waiting, 3 images are before yours"

"""A page in real headless Chromium: what is opened, pressed and seen."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, expect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-unsafe-swiftshader",
]
WAIT = 60_000  # ms, of whatever is awaited
expect.set_options(timeout=WAIT)
QUIET = re.compile(r"GPU stall due to ReadPixels|Automatic fallback to software WebGL")  # of WebGL without a card


class Seen:
    """A page that is open, and what has been said of it.

    Attributes:
        page: Playwright's.
        wrong: errors of the console, of scripts, of requests, and requests to other servers.
    """

    def __init__(self, page: Page, address: str) -> None:
        self.page, self.address, self.wrong = page, address, list[str]()
        page.set_default_timeout(WAIT)
        page.on("console", lambda said: self._said(said.type, said.text, said.location["url"]))
        page.on("pageerror", lambda error: self._note(str(error)))
        page.on("response", lambda answer: self._answered(answer.status, answer.url))
        page.on("request", lambda request: self._asked(request.url))

    def _said(self, kind: str, text: str, url: str) -> None:
        icon = url.endswith("/favicon.ico") and not url.startswith(self.address)  # browsers ask the host, unasked
        if kind in ("error", "warning") and not icon:
            self._note(text)

    def _answered(self, status: int, url: str) -> None:
        if status >= 400:
            self._note(f"{status} {url}")

    def _asked(self, url: str) -> None:
        if not url.startswith((self.address, "data:", "blob:")):
            self._note(f"elsewhere: {url}")

    def _note(self, text: str) -> None:
        if not QUIET.search(text):
            self.wrong.append(text)

    @property
    def news(self) -> Any:
        """Returns the line of news."""
        return self.page.locator("#status .news")

    def open(self) -> Seen:
        """Opens the page, and waits for its first control map."""
        self.page.goto(self.address)
        expect(self.news).to_contain_text("windows")
        return self

    def tab(self, name: str) -> None:
        """Opens a view."""
        self.page.get_by_role("tab", name=name, exact=True).click()

    def choose(self, field: str, value: str) -> None:
        """Chooses of a list."""
        self.page.get_by_label(field, exact=True).click()
        self.page.get_by_role("option", name=value, exact=True).click()

    def enter(self, field: str, value: str) -> None:
        """Fills in a field, and leaves it."""
        box = self.page.get_by_label(field, exact=True)
        box.fill(value)
        box.blur()

    def unfold(self, name: str) -> None:
        """Opens the settings of a kind."""
        self.page.get_by_role("button", name=name, exact=False).filter(has_text=name).first.click()
        self.page.wait_for_timeout(500)  # fields that are mounted only now take their values once more

    def draw(self) -> None:
        """Draws, and waits until it is done."""
        self.page.get_by_role("button", name="Draw", exact=True).click()
        expect(self.news).to_have_text(re.compile(r"^Done\."))

    def entries(self) -> list[dict[str, Any]]:
        """Returns the pictures of the session, the newest first."""
        found: list[dict[str, Any]] = self.page.evaluate("synccontrol.entries")
        return found


@contextmanager
def seen(browser: Browser, address: str, **options: Any) -> Iterator[Seen]:
    """Returns a page of a browser of its own, with cookies of its own."""
    context = browser.new_context(viewport={"width": 1360, "height": 1000}, **options)
    try:
        yield Seen(context.new_page(), address)
    finally:
        context.close()


def drop(page: Page, selector: str, path: Path, kind: str) -> None:
    """Drops a file onto an element."""
    import base64

    data = base64.b64encode(path.read_bytes()).decode()
    transfer = page.evaluate_handle(
        """([data, name, kind]) => {
            const bytes = Uint8Array.from(atob(data), (one) => one.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], name, { type: kind }));
            return transfer;
        }""",
        [data, path.name, kind],
    )
    page.dispatch_event(selector, "drop", {"dataTransfer": transfer})

"""How long the page takes: from opening it in Chromium to the first preview, and to the picture. Prints JSON lines.

    python -m benchmarks.page

Each round serves the page anew, so that its model is loaded in the time that is measured, and presses Draw at once.
Needs Chromium and Playwright (`requirements-dev.txt`).
"""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import sync_playwright

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
LONGEST = 300_000  # ms


def chromium() -> str:
    """Returns the path of Chromium; ends the program where there is none."""
    found = next((path for name in CHROMIUM if (path := shutil.which(name))), None)
    if found is None:
        sys.exit(f"there is no Chromium; install one of {', '.join(CHROMIUM)}")
    return found


@contextmanager
def served() -> Iterator[str]:
    """Returns the address of a page that is served anew."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = str(one.getsockname()[1])
    command = [sys.executable, "-m", "synccontrol.studio", "--offline", "--port", port]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[4]
        finally:
            process.send_signal(signal.SIGINT)


def measured(address: str, browser_path: str) -> dict[str, float]:
    """Returns seconds from opening a page until its control map, first preview and picture are seen."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=ARGUMENTS)
        page = browser.new_page()
        page.set_default_timeout(LONGEST)
        start = time.perf_counter()
        seen = {}

        def note(name: str, selector: str) -> None:
            page.wait_for_selector(selector, state="attached")
            seen[name] = round(time.perf_counter() - start, 1)

        page.goto(address)
        note("page", "#draw")
        note("control map", "#status .news:has-text('windows')")
        page.click("#draw")
        note("first preview", "#picture figcaption:has-text('preview after step')")
        note("picture", "#status .news:has-text('Done.')")
        browser.close()
    return seen


def main() -> None:
    """Measures so many rounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="times (default: 3)")
    rounds = parser.parse_args().rounds
    path = chromium()
    for _ in range(rounds):
        with served() as address:
            load = round(os.getloadavg()[0], 1)
            print(json.dumps({**measured(address, path), "load": load, "cores": os.cpu_count()}), flush=True)


if __name__ == "__main__":
    main()

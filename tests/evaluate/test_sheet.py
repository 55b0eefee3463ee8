"""The sheet links what it shows, whatever files are called."""

import os
from pathlib import Path

from synccontrol.evaluate.html_report import ContactSheetEntry, contact_sheet


def test_names_of_any_bytes_are_linked_and_escaped() -> None:
    name = os.fsdecode(b"a\xff<b>.png")
    entry = ContactSheetEntry(
        title=name, caption="x", error="lost", images=(("guide", Path("/in") / name), ("picture", Path(name)))
    )
    page = contact_sheet("all", [entry], Path("/out"))
    assert 'src="../in/a%FF%3Cb%3E.png"' in page
    assert page.encode("utf-8") and "<b>" not in page
    assert '<p class="worse">lost</p>' in page

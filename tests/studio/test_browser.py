"""The page as its visitors have it, in headless Chromium with the bundled model; no console may complain."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from synccontrol.io import metadata
from tests.studio.conftest import ROOT, free_port, serving

pytest.importorskip("playwright")

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, expect, sync_playwright

from tests.studio.browser import ARGUMENTS, CHROMIUM, Seen, drop, seen
from tests.studio.proxy import proxied

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium: apt-get install chromium"),
]
GUIDES = ROOT / "examples" / "guides"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield found
        found.close()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving("--max-upload", "1", "--max-pixels", "2", "--max-steps", "200") as found:
        yield found


@pytest.fixture
def visit(browser: Browser, address: str) -> Iterator[Seen]:
    with seen(browser, address) as visit:
        yield visit.open()
        assert not visit.wrong


@pytest.fixture
def small(visit: Seen) -> Seen:
    """Returns a page that draws quickly: two windows, three steps."""
    visit.unfold("Sampling")
    visit.enter("steps", "3")
    visit.enter("Width", "384")
    visit.enter("Height", "256")
    visit.choose("Fit", "crop")
    expect(visit.news).to_contain_text("384x256 px, 2 windows")
    return visit


def pixels(visit: Seen, entry: dict[str, Any]) -> npt.NDArray[np.uint8]:
    """Returns a picture of the session."""
    body = visit.page.context.request.get(visit.address + entry["src"]).body()
    return np.asarray(Image.open(io.BytesIO(body)))


def test_a_guide_is_opened_its_map_seen_and_a_picture_drawn(visit: Seen, tmp_path: Path) -> None:
    page = visit.page
    page.get_by_role("radio", name="fast").check()  # first, so that its settings have arrived when Draw is pressed
    page.locator("#easel .file").set_input_files(GUIDES / "desert.png")
    visit.choose("Control", "canny")
    visit.tab("Map")
    expect(page.locator("#map figcaption")).to_have_text("canny map")
    before = page.locator("#map img").get_attribute("src")
    visit.unfold("Detector settings")
    visit.enter("canny: high", "900")
    expect(page.locator("#map img")).not_to_have_attribute("src", str(before))
    page.get_by_role("button", name="Draw", exact=True).click()
    expect(page.locator("#picture figcaption")).to_contain_text("preview after step")
    expect(page.locator("#picture svg .anchor")).to_have_count(1)
    expect(page.locator("#picture svg .anchor")).to_be_visible()
    assert page.locator("#picture svg .box").count() > 5
    expect(visit.news).to_contain_text(re.compile(r"step \d+ of 10, about \d+ s left"))
    expect(visit.news).to_have_text(re.compile(r"^Done\."))
    expect(page.locator("#picture svg .anchor")).to_be_hidden()  # over a finished picture only where it is asked for
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    with Image.open(path) as image:
        assert image.size == (1536, 256)
    settings = metadata.read_settings(path)
    assert (settings["prompt"], settings["control"], settings["steps"]) == ("a mountain valley at sunset", ["canny"], 6)
    first, second = page.locator("#history .command").inner_text().splitlines()
    assert first == "synccontrol map --guide desert.png --control canny --option canny.high=900 --output map.png"
    assert "--control-map canny=map.canny.png" in second


def test_stop_ends_within_a_step_and_keeps_the_preview(visit: Seen) -> None:
    page = visit.page
    visit.unfold("Sampling")
    visit.enter("steps", "200")
    page.get_by_role("button", name="Draw", exact=True).click()
    expect(page.locator("#picture figcaption")).to_contain_text("preview after step")
    at = int(re.findall(r"step (\d+) of 260", visit.news.inner_text())[0])
    page.keyboard.press("Escape")
    expect(visit.news).to_contain_text("Stopped after step")
    ended = int(re.findall(r"after step (\d+)", visit.news.inner_text())[0])
    assert at <= ended <= at + 2  # the one that ended while the key was pressed, and the one after it
    expect(page.locator("#picture figcaption")).to_contain_text("preview after step")
    assert not visit.entries()


def test_variations_lie_below_each_other_and_two_under_a_slider(small: Seen) -> None:
    page = small.page
    small.enter("Variations", "2")
    small.draw()
    expect(page.locator("#picture figure")).to_have_count(2)
    assert [entry["settings"]["seed"] for entry in small.entries()] == [1, 0]
    small.tab("Compare")
    border = page.locator("#compare .border")
    assert page.locator("#compare .cut").evaluate("(one) => one.style.clipPath") == "inset(0px 50% 0px 0px)"
    border.focus()
    for _ in range(20):
        page.keyboard.press("ArrowRight")
    assert page.locator("#compare .cut").evaluate("(one) => one.style.clipPath") == "inset(0px 40% 0px 0px)"
    box = page.locator("#compare .pair").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 5)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + 5)
    page.mouse.up()
    assert 20 < float(border.input_value()) < 30
    assert page.locator("#compare .differences tbody tr").all_inner_texts() == ["seed\t0\t1"]


def test_a_ring_is_looked_at_from_its_inside(small: Seen) -> None:
    page = small.page
    page.locator("#easel .file").set_input_files(GUIDES / "ring.png")
    small.enter("Width", "0")
    small.enter("Height", "0")
    page.get_by_role("radio", name="ring").check()
    expect(small.news).to_contain_text("windows")
    small.draw()
    small.tab("360°")
    expect(page.locator("#sphere canvas")).to_be_visible()
    page.wait_for_function("synccontrol.viewer && synccontrol.viewer.isLoaded()")
    before = page.evaluate("synccontrol.viewer.getYaw()")
    page.locator("#sphere .viewer").scroll_into_view_if_needed()
    box = page.locator("#sphere .viewer").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2, steps=5)
    page.mouse.up()
    page.wait_for_function(f"Math.abs(synccontrol.viewer.getYaw() - {before}) > 10")


def test_a_picture_that_is_dropped_restores_its_settings(small: Seen, tmp_path: Path) -> None:
    page = small.page
    small.enter("Prompt", "a desert, noon")
    small.enter("Seed", "77")
    page.get_by_label("guess mode").check()
    small.draw()
    entry = small.entries()[0]
    path = tmp_path / "mine.png"
    path.write_bytes(page.context.request.get(small.address + entry["src"]).body())
    page.reload()
    expect(small.news).to_contain_text("windows")
    drop(page, "#history .drop", path, "image/png")
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a desert, noon")
    expect(page.get_by_label("Seed", exact=True)).to_have_value("77")
    expect(page.get_by_label("Width", exact=True)).to_have_value("384")
    small.unfold("Sampling")
    expect(page.get_by_label("steps", exact=True)).to_have_value("3")
    expect(page.get_by_label("guess mode")).to_be_checked()
    small.draw()
    again = small.entries()[0]
    assert {**again["settings"], "guide": ""} == {**entry["settings"], "guide": ""}


def test_settings_that_name_files_open_none(visit: Seen, tmp_path: Path) -> None:
    path = tmp_path / "evil.json"
    path.write_text(
        json.dumps({"prompt": "x", "guide": "/etc/passwd", "model": "/etc", "lora": ["/etc/x"], "steps": 5})
    )
    drop(visit.page, "#history .drop", path, "application/json")
    expect(visit.page.get_by_label("Prompt", exact=True)).to_have_value("x")
    for said in (
        "guide passwd: files are not opened by their name",
        "model /etc is not on offer",
        "lora: this page loads",
    ):
        expect(visit.news).to_contain_text(said)


def test_bad_files_give_their_line(visit: Seen, tmp_path: Path) -> None:
    path = tmp_path / "bad.png"
    path.write_bytes(b"no picture at all")
    visit.page.locator("#easel .file").set_input_files(path)
    expect(visit.news).to_have_text("this is not an image that can be read; use PNG, JPEG or WebP")
    expect(visit.page.locator("#status .error")).to_be_visible()
    Image.new("RGB", (2000, 1500)).save(path)
    visit.page.locator("#easel .file").set_input_files(path)
    expect(visit.news).to_contain_text("2000x1500 pixels, and 2 megapixels are the most")
    people = tmp_path / "people.json"
    people.write_text("{}")
    visit.page.locator("#easel .file").set_input_files(people)
    expect(visit.news).to_contain_text("only the control pose reads; choose pose first")
    Image.new("RGB", (1900, 1500)).save(path)
    drop(visit.page, "#history .drop", path, "image/png")
    expect(visit.news).to_contain_text("1900x1500 pixels")
    visit.page.locator("#easel .file").set_input_files(GUIDES / "desert.png")  # nothing that failed is in the way
    expect(visit.news).to_contain_text("1536x256 px")


def test_a_guide_is_sketched(visit: Seen) -> None:
    page = visit.page
    page.get_by_role("button", name="Blank").click()
    paper = page.locator("#easel .paper")
    box = paper.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 50, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + 400, box["y"] + 120, steps=8)
    page.mouse.up()
    visit.choose("Control", "canny")
    visit.tab("Map")
    expect(page.locator("#map .notes li")).to_have_count(0)
    visit.tab("Guide")
    page.get_by_role("button", name="Undo").click()
    visit.tab("Map")
    expect(page.locator("#map .notes")).to_contain_text("it holds no edges")


def test_two_visitors_at_once(browser: Browser, address: str) -> None:
    with seen(browser, address) as first, seen(browser, address) as second:
        first.open()
        second.open()
        for one in (first, second):
            one.page.get_by_role("radio", name="fast").check()
            one.page.get_by_role("button", name="Draw", exact=True).click()
        expect(second.news).to_contain_text("1 image is before yours")
        for one in (first, second):
            expect(one.news).to_have_text(re.compile(r"^Done\."))
            assert len(one.entries()) == 1
        picture = address + first.entries()[0]["src"]
        assert first.page.context.request.get(picture).status == 200
        assert second.page.context.request.get(picture).status == 404
        assert not first.wrong and not second.wrong


def test_regions_are_drawn_along_the_width(small: Seen) -> None:
    page = small.page
    for prompt in ("a forest", "a desert"):
        page.get_by_role("button", name="Add a region").click()
        page.keyboard.type(prompt)
    border = page.get_by_role("slider", name="Right border of region 1, percent")
    border.focus()
    for _ in range(5):
        page.keyboard.press("ArrowLeft")
    expect(border).to_have_attribute("aria-valuenow", "45")
    box, ruler = border.bounding_box(), page.locator("#regions .ruler").bounding_box()
    assert box is not None and ruler is not None
    page.mouse.move(box["x"] + 6, box["y"] + 5)
    page.mouse.down()
    page.mouse.move(ruler["x"] + 0.3 * ruler["width"], box["y"] + 5, steps=3)
    page.mouse.up()
    expect(page.get_by_role("group", name="Region 1").get_by_label("Where")).to_have_value("0-30%")
    page.wait_for_timeout(1000)
    small.draw()
    entry = small.entries()[0]
    assert entry["settings"]["region"] == ["0-30%: a forest", "50-85%: a desert"]
    page.get_by_role("group", name="Region 2").get_by_role("button", name="Remove").click()
    page.get_by_role("button", name="Its settings again").click()
    expect(page.get_by_role("group", name="Region 2").get_by_label("Prompt")).to_have_value("a desert")


def test_a_picture_starts_from_another(small: Seen) -> None:
    page = small.page
    small.draw()
    page.get_by_role("button", name="Start from it").click()
    small.unfold("Start from a picture")
    expect(page.locator("#start .name")).to_have_text("valley-0.png")
    small.enter("strength", "0.5")
    small.draw()
    first, second = reversed(small.entries())
    assert (first["settings"]["init_image"], second["settings"]["init_image"]) == (None, "valley-0.png")
    assert second["settings"]["strength"] == 0.5
    mask = page.locator("#start .mask")
    mask.scroll_into_view_if_needed()
    box = mask.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.7 * box["width"], box["y"] + 0.5 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.9 * box["width"], box["y"] + 0.5 * box["height"], steps=3)
    page.mouse.up()
    expect(page.get_by_role("button", name="Brush nothing")).to_be_enabled()
    page.wait_for_timeout(500)
    small.draw()
    old, new = (pixels(small, entry) for entry in (first, small.entries()[0]))
    assert (old[:, :200] == new[:, :200]).all() and (old[:, 260:] != new[:, 260:]).any()
    page.get_by_role("button", name="Brush nothing").click()
    small.enter("Width", "0")
    small.choose("Control", "none")
    page.get_by_label("outpaint").fill("right 128")
    page.get_by_label("outpaint").blur()
    small.draw()
    wide = pixels(small, small.entries()[0])
    assert wide.shape[1] == 512 and (wide[:, :300] == old[:, :300]).all()
    page.get_by_role("button", name="Start from noise alone").click()
    expect(page.locator("#start .chosen")).to_be_hidden()
    small.enter("Width", "384")
    small.draw()
    assert small.entries()[0]["settings"]["init_image"] is None


def test_a_picture_is_enlarged(small: Seen) -> None:
    small.unfold("Enlarge")
    small.enter("upscale", "2")
    small.page.get_by_role("radio", name="fast").check()
    small.enter("steps", "2")
    small.draw()
    (entry,) = small.entries()
    assert entry["settings"]["upscale"] == 2 and pixels(small, entry).shape == (512, 768, 3)
    assert "--upscale 2" in entry["command"] and "--tall-canvas" not in entry["command"]


def test_a_picture_is_looked_at_closer(visit: Seen) -> None:
    page = visit.page
    visit.tab("Picture")
    page.locator("#picture").get_by_role("button", name="Look closer").click()
    stage, size = page.locator(".closer .stage"), page.locator(".closer output")
    expect(stage).to_be_focused()
    expect(size).to_have_text(re.compile(r"\d+ %"))

    def percent() -> int:
        return int(str(size.text_content()).split()[0])

    whole = percent()
    box = page.locator(".closer img").bounding_box()
    assert box is not None and box["width"] > 1300  # as wide as the window
    page.mouse.move(box["x"] + 100, box["y"] + box["height"] / 2)
    page.mouse.wheel(0, -400)
    page.wait_for_function(f"parseInt(document.querySelector('.closer output').textContent) > {whole}")
    before = page.locator(".closer img").bounding_box()
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(400)
    moved = page.locator(".closer img").bounding_box()
    assert before is not None and moved is not None and moved["x"] < before["x"] - 50
    page.keyboard.press("1")
    expect(size).to_have_text("100 %")
    page.keyboard.press("0")
    expect(size).to_have_text(f"{whole} %")
    assert [one["id"] for one in Axe().run(page).response["violations"]] == []
    news = visit.news.inner_text()
    page.keyboard.press("Escape")
    expect(page.locator(".closer")).to_be_hidden()
    assert visit.news.inner_text() == news  # nothing was stopped
    page.locator("#picture img").click()
    expect(stage).to_be_focused()
    page.get_by_role("button", name="Close", exact=True).click()


def test_it_works_below_a_path_behind_a_proxy(browser: Browser) -> None:
    proxy = partial(proxied, path="/pictures", port=free_port())
    with serving("--root-path", "/pictures") as server, proxy(server) as address, seen(browser, address) as visit:
        visit.open()
        visit.page.get_by_role("radio", name="fast").check()
        visit.page.get_by_role("button", name="Draw", exact=True).click()
        expect(visit.page.locator("#picture figcaption")).to_contain_text("preview after step")
        expect(visit.news).to_have_text(re.compile(r"^Done\."))
        picture = visit.page.locator("#picture img")
        assert str(picture.get_attribute("src")).startswith("synccontrol/pictures/")
        assert picture.evaluate("(one) => one.naturalWidth") == 1536
        assert not visit.wrong


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_input_is_labelled_and_can_be_read(scheme: str, browser: Browser, address: str) -> None:
    with seen(browser, address, color_scheme=scheme) as visit:
        visit.open()
        for kind in ("Sampling", "Windows", "Sync"):
            visit.unfold(kind)
        for name in ("Guide", "Map", "Picture", "Compare", "360°"):
            visit.tab(name)
            visit.page.wait_for_timeout(300)
            found = Axe().run(visit.page).response
            assert [(one["id"], one["nodes"][0]["html"]) for one in found["violations"]] == [], name
            assert len(found["passes"]) > 20


def test_it_fits_a_phone_and_needs_no_mouse(browser: Browser, address: str) -> None:
    with seen(browser, address) as visit:
        visit.page.set_viewport_size({"width": 390, "height": 844})
        visit.open()
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= 390
        visit.page.get_by_role("tab", name="Guide").focus()
        names = set()
        for _ in range(60):
            visit.page.keyboard.press("Tab")
            names.add(
                visit.page.evaluate("(document.activeElement.innerText || document.activeElement.id || '').trim()")
            )
        assert {"Draw", "Stop", "Blank", "Roll the dice"} <= names
        assert not visit.wrong

"""Screenshots of the page, in headless Chromium, and the example image that it opens with."""

import re
from io import BytesIO
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from benchmarks.page import ARGUMENTS, chromium, served
from docs.drawings.readme import DEMO
from docs.drawings.sheets import IMAGES, ROOT, control_map, montage

ASSETS = ROOT / "synccontrol" / "studio" / "assets"
GUIDES = ROOT / "examples" / "guides"
WEBGL = "--enable-unsafe-swiftshader"  # for the panorama viewer, without a GPU
WIDE, PHONE = {"width": 1280, "height": 760}, {"width": 390, "height": 844}
WAIT = 120_000  # ms
QUALITY, FIRST_QUALITY = 85, 75
REGIONS = (("0-35%", "a forest, night"), ("35-68%", "snowy peaks, noon"), ("68-100%", "a desert at sunset"))
PREVIEW_STEP = 9  # steps that are done in the screenshot of a preview


def opened(browser: Browser, address: str, **options: Any) -> Page:
    """Open the page and wait for its first control map."""
    page = browser.new_context(**options).new_page()
    page.set_default_timeout(WAIT)
    page.goto(address)
    expect(page.locator("#status .news")).to_contain_text("windows")
    return page


def save(shot: bytes, name: str) -> None:
    """Write a screenshot to `docs/images`."""
    Image.open(BytesIO(shot)).convert("RGB").save(IMAGES / f"{name}.webp", quality=QUALITY)


def draw_picture(page: Page) -> None:
    """Start generation, and wait until it is done."""
    page.get_by_role("button", name="Draw", exact=True).click()
    expect(page.locator("#status .news")).to_have_text(re.compile(r"^Done\."))


def enter(page: Page, field: str, text: str) -> None:
    """Fill in a field, and leave it."""
    box = page.get_by_label(field, exact=True)
    box.fill(text)
    box.blur()


def top(page: Page, height: int) -> bytes:
    """Return a screenshot of the page from its tabs down."""
    page.evaluate("scrollTo(0, 0)")
    box = page.locator("#views").bounding_box()
    assert box is not None
    return page.screenshot(full_page=True, clip={"x": 0, "y": box["y"], "width": WIDE["width"], "height": height})


def brush(page: Page, paper: Locator) -> None:
    """Paint a mask along the middle of an image."""
    paper.scroll_into_view_if_needed()
    box = paper.bounding_box()
    assert box is not None
    y = box["y"] + 0.7 * box["height"]
    page.mouse.move(box["x"] + 0.43 * box["width"], y)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.69 * box["width"], y + 0.08 * box["height"], steps=6)
    page.mouse.up()
    page.wait_for_timeout(500)


def photograph_pictures(page: Page) -> None:
    """Take screenshots of a preview, the closer look, inpainting, regions and the comparison."""
    page.get_by_role("button", name="Draw", exact=True).click()
    expect(page.locator("#picture figcaption")).to_contain_text(f"preview after step {PREVIEW_STEP}")
    page.evaluate("scrollTo(0, 0)")
    save(page.screenshot(), "page")
    expect(page.locator("#status .news")).to_have_text(re.compile(r"^Done\."))
    page.locator("#picture").get_by_role("button", name="Look closer").click()
    for _ in range(2):
        page.get_by_role("button", name="Larger", exact=True).click()
        page.wait_for_timeout(500)
    save(page.screenshot(), "page-closer")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Start from it").click()
    page.get_by_role("button", name="Start from a picture").click()
    brush(page, page.locator("#start .mask"))
    save(
        page.locator("#start").locator("xpath=ancestor::*[contains(@class, 'block')][last()]").screenshot(),
        "page-repaint",
    )
    page.get_by_role("button", name="Start from noise alone").click()
    enter(page, "Prompt", "mountains")
    for number, (where, prompt) in enumerate(REGIONS, 1):
        page.get_by_role("button", name="Add a region").click()
        page.keyboard.type(prompt)
        field = page.get_by_role("group", name=f"Region {number}").get_by_label("Where")
        field.fill(where)
        field.blur()
    draw_picture(page)
    save(top(page, 580), "page-regions")
    page.get_by_role("tab", name="Compare", exact=True).click()
    page.wait_for_timeout(500)
    save(top(page, 490), "page-compare")


def photograph_ring(page: Page) -> None:
    """Take a screenshot of a cylindrical panorama from inside."""
    page.locator("#easel .file").set_input_files(GUIDES / "ring.png")
    page.get_by_role("radio", name="ring").check()
    enter(page, "Prompt", "mountains, noon")
    draw_picture(page)
    page.get_by_role("tab", name="360°", exact=True).click()
    page.wait_for_function("synccontrol.viewer && synccontrol.viewer.isLoaded()")
    page.wait_for_timeout(2000)
    save(page.locator("#sphere .viewer").screenshot(), "page-ring")


def draw() -> None:
    """Write `docs/images/page*.webp` and the first image of the page."""
    path = chromium()
    first = montage("depth")(DEMO, control_map("depth", "valley")).image
    first.save(ASSETS / "first.webp", quality=FIRST_QUALITY)
    expect.set_options(timeout=WAIT)
    with served() as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=[*ARGUMENTS, WEBGL])
        photograph_pictures(opened(browser, address, viewport=WIDE))
        photograph_ring(opened(browser, address, viewport=WIDE))
        phone = opened(browser, address, viewport=PHONE, device_scale_factor=2, color_scheme="dark")
        phone.get_by_role("tab", name="Picture", exact=True).click()
        phone.wait_for_timeout(500)
        save(phone.screenshot(), "page-phone")
        browser.close()

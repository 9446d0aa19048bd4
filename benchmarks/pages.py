"""Two reports of one run side by side as a picture, and how fast the new one can be used.

    python benchmarks/pages.py OLD/index.html NEW/index.html docs/images/report.png

draws the first screens of both pages at 1440 pixels in Chromium beside each other, and prints for
the new page and the gallery beside it: bytes, and seconds until it can be used (the load event, and
for the gallery another group chosen, sorted and drawn), the median of five.
"""

from __future__ import annotations

import argparse
import io
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

WIDTH, HEIGHT, REDUCED = 1440, 2600, 720
TIMES = 5


def main() -> None:
    """The picture is written, the figures printed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", metavar="OLD/index.html", type=Path)
    parser.add_argument("new", metavar="NEW/index.html", type=Path)
    parser.add_argument("picture", metavar="PICTURE", type=Path)
    asked = parser.parse_args()
    from playwright.sync_api import sync_playwright

    old, new = asked.old.resolve(), asked.new.resolve()
    with sync_playwright() as tool:
        chromium = shutil.which("chromium") or shutil.which("chromium-browser")
        browser = tool.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        sides = [_shot(browser, page) for page in (old, new)]
        _beside(sides).save(asked.picture, optimize=True)
        for page in (new, new.with_name("gallery.html")):
            taken = [_usable(browser, page) for _ in range(TIMES)]
            size = page.stat().st_size / 2**20
            print(f"{page.name}: {size:.1f} MiB, usable after {statistics.median(taken):.2f} s")
        browser.close()


def _shot(browser: Any, page: Path) -> Image.Image:
    tab = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
    tab.goto(page.as_uri())
    tab.wait_for_timeout(500)
    found = Image.open(io.BytesIO(tab.screenshot())).convert("RGB")
    tab.close()
    return found.resize((REDUCED, HEIGHT * REDUCED // WIDTH), Image.Resampling.LANCZOS)


def _beside(sides: list[Image.Image]) -> Image.Image:
    canvas = Image.new("RGB", (2 * REDUCED + 24, sides[0].height + 32), "white")
    draw = ImageDraw.Draw(canvas)
    for position, (title, image) in enumerate(zip(("before", "now"), sides, strict=True)):
        left = position * (REDUCED + 24)
        draw.text((left + 4, 6), title, fill="black", font_size=18)
        canvas.paste(image, (left, 32))
    return canvas.quantize(256)


def _usable(browser: Any, page: Path) -> float:
    """Seconds until the page is loaded and, of a gallery, has drawn another choice."""
    tab = browser.new_page(viewport={"width": WIDTH, "height": 900})
    start = time.perf_counter()
    tab.goto(page.as_uri(), wait_until="load")
    if tab.locator("#group").count():
        tab.select_option("#group", index=1)
        tab.select_option("#sort", "score")
        tab.locator("#made button").nth(100).wait_for()
    taken = time.perf_counter() - start
    tab.close()
    return taken


if __name__ == "__main__":
    main()

"""The page and its gallery in a real Chromium: wide and narrow, light and dark, without scripts."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raysynth.progress import Progress
from raysynth.report.stage import run_report
from tests.report.made_run import CANDIDATES, GROUPS, make_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install axe-...")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium"),
]
WIDTHS, SCHEMES = (1440, 360), ("light", "dark")
CUT = """() => [...document.querySelectorAll('td, th, dd, dt, h1, h2, h3, p, li, figcaption')]
  .filter(one => one.offsetParent && !one.closest('.picture') && !one.closest('thead'))
  .filter(one => { const box = one.getBoundingClientRect(); return box.right > innerWidth + 1; })
  .map(one => one.outerHTML.slice(0, 120))"""
"""Texts that end beyond the window's right edge."""
DRAWN = """() => [...document.querySelectorAll('figure[data-chart]')].map(one =>
  [one.dataset.chart, one.querySelectorAll('.live svg path').length])"""
BROKEN = """() => [...document.images].filter(one => one.offsetParent && one.getAttribute('src'))
  .filter(one => one.complete && !one.naturalWidth).map(one => one.alt)"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of a made run, whose images of one group are larger than thumbnails."""
    rng = np.random.default_rng(0)

    def draw(group: int, index: int) -> np.ndarray:
        side = 160 if group == 3 else 32
        return rng.integers(0, 255, (side, side, 3)).astype(np.uint8)

    config, run = make_run(tmp_path_factory.mktemp("runs"), draw=draw)
    out = tmp_path_factory.mktemp("page")
    run_report(config, run, str(out), Progress())
    return out


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as tool:
        found = tool.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


class Opened:
    """A page in a tab, and what it complained of or fetched."""

    def __init__(self, browser: Any, path: Path, width: int, scheme: str, **more: Any) -> None:
        size = {"width": width, "height": 900}
        self.tab = browser.new_page(viewport=size, color_scheme=scheme, **more)
        self.errors: list[str] = []
        self.fetched: list[str] = []
        self.tab.on("console", lambda said: self._said(said))
        self.tab.on("pageerror", lambda error: self.errors.append(str(error)))
        self.tab.on("request", lambda request: self.fetched.append(request.url))
        self.tab.goto(f"file://{path}")

    def _said(self, said: Any) -> None:
        if said.type in ("error", "warning"):
            self.errors.append(said.text)

    def serious(self) -> list[str]:
        """Violations that axe calls serious or critical."""
        found = axe.Axe().run(self.tab).response["violations"]
        return [
            f"{one['id']}: {one['nodes'][0]['html'][:200]}"
            for one in found
            if one["impact"] in ("serious", "critical")
        ]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["index", "gallery"])
def test_nothing_is_broken_cut_or_closed_to_anybody(browser, folder, name, width, scheme):
    opened = Opened(browser, folder / f"{name}.html", width, scheme)
    assert opened.tab.evaluate("document.documentElement.scrollWidth") == width
    assert opened.tab.evaluate(CUT) == []
    assert opened.serious() == []
    assert opened.tab.evaluate(BROKEN) == []
    if name == "index":
        drawn = dict(opened.tab.evaluate(DRAWN))
        assert set(drawn) == {"methods", "search", "parallel", "scores"}
        assert min(drawn.values()) > 10, drawn
    assert opened.errors == []
    assert [url for url in opened.fetched if not url.startswith(("data:", "file://"))] == []
    opened.tab.close()


def test_the_page_is_whole_without_scripts(browser, folder):
    opened = Opened(browser, folder / "index.html", 1440, "light", java_script_enabled=False)
    pictures = opened.tab.locator("figure .picture svg")
    assert pictures.count() == 5 and all(p.is_visible() for p in pictures.all())
    assert not opened.tab.locator("figure.script").is_visible()
    assert opened.tab.get_by_text("Whether synthesis helped cannot be told").first.is_visible()
    opened.tab.close()


def test_wide_tables_need_no_scrolling_and_narrow_ones_show_their_numbers(browser, folder):
    wide = Opened(browser, folder / "index.html", 1440, "light")
    scrolling = """() => [...document.querySelectorAll('.scroll')]
      .filter(one => one.scrollWidth > one.clientWidth + 1).map(one => one.ariaLabel)"""
    assert wide.tab.evaluate(scrolling) == []
    wide.tab.close()
    narrow = Opened(browser, folder / "index.html", 360, "light")
    row = narrow.tab.locator("table.results tr.ours td").first
    box = row.bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 360
    assert narrow.tab.locator("table.results tr.ours").get_by_text("±").first.is_visible()
    narrow.tab.close()


PAPER = """() => {
  const all = (chosen) => [...document.querySelectorAll(chosen)];
  const right = (one) => one.getBoundingClientRect().right, body = getComputedStyle(document.body);
  const parts = (one) => [...one.querySelectorAll('.picture, .live')];
  return {
    ink: body.color, paper: body.backgroundColor,
    buttons: all('nav, .button, .browse').filter(one => one.offsetParent).length,
    wide: all('table, pre, figure svg').filter(one => right(one) > innerWidth + 1)
      .map(one => one.outerHTML.slice(0, 120)),
    hidden: all('thead th').filter(one => one.offsetHeight < 4).length,
    both: all('figure[data-chart]').map(one => parts(one).filter(part => part.offsetHeight > 50))
      .filter(shown => shown.length !== 1).length,
    folded: all('details:not([open])').length,
    pale: all('figure.script .live svg text').map(one => getComputedStyle(one).fill)
      .filter(fill => fill.match(/\\d+/g).slice(0, 3).every(part => +part > 150)),
  };
}"""
"""What a printed page shows: colours, what only a screen has, what is cut, how plots are drawn."""
A4 = 703
"""Pixels of paper's width within the margins."""


def test_on_paper_all_is_there_in_light_colours_and_nothing_is_cut(browser, folder, tmp_path):
    opened = Opened(browser, folder / "index.html", 1440, "dark")
    tab = opened.tab
    pale = tab.evaluate(PAPER)["ink"]
    tab.emulate_media(media="print")
    tab.set_viewport_size({"width": A4, "height": 1000})
    seen = tab.evaluate(PAPER)
    assert seen["ink"] == "rgb(0, 0, 0)" != pale and seen["paper"] == "rgb(255, 255, 255)"
    assert seen["wide"] == [] and seen["pale"] == []
    assert [seen[key] for key in ("buttons", "hidden", "both", "folded")] == [0, 0, 0, 0]
    tab.emulate_media(media="screen")
    tab.set_viewport_size({"width": 1440, "height": 900})
    seen = tab.evaluate(PAPER)
    assert seen["ink"] == pale and seen["folded"] and seen["buttons"]
    tab.pdf(path=tmp_path / "page.pdf", format="A4", print_background=True)
    pages = (tmp_path / "page.pdf").read_bytes().count(b"/Type /Page\n")
    assert 5 < pages < 30
    assert tab.evaluate(PAPER)["folded"], "folded again"
    assert opened.errors == []
    tab.close()


def test_the_gallery_sorts_filters_and_opens(browser, folder):
    opened = Opened(browser, folder / "gallery.html", 1440, "light")
    tab, tiles = opened.tab, opened.tab.locator("#made button")
    assert tiles.count() == CANDIDATES
    tab.select_option("#kind", "rejected")
    assert tiles.count() == CANDIDATES // 4 - 1, "one of them is a copy"
    tab.select_option("#kind", "copy")
    assert tiles.count() == 1 and "copy" in tiles.first.inner_text()
    tab.select_option("#kind", "")
    tab.select_option("#sort", "score")
    scores = [float(text.split()[0]) for text in tiles.all_inner_texts()]
    assert scores == sorted(scores)
    tab.fill("#least", "0.5")
    assert tiles.count() == sum(score >= 0.5 for score in scores)
    tab.select_option("#group", "3")
    tab.fill("#least", "")
    assert GROUPS.names[3] in tab.locator("#count").inner_text()
    tiles.nth(1).click()
    assert "a photo" in tab.locator("#facts").inner_text()
    assert tab.locator("#big").evaluate("one => one.naturalWidth") == 160, "in full size"
    first = tab.locator("#facts").inner_text()
    tab.keyboard.press("ArrowRight")
    assert tab.locator("#facts").inner_text() != first
    tab.keyboard.press("Escape")
    assert not tab.locator("#view").is_visible()
    assert opened.errors == []
    tab.close()


def test_full_size_images_stop_where_they_were_told_to(folder, tmp_path):
    from PIL import Image

    found = sorted((folder / "gallery").iterdir())
    made = [path for path in found if path.name.startswith("48-")]
    assert len(made) == CANDIDATES, "those of the group whose images are larger"
    assert Image.open(io.BytesIO(made[0].read_bytes())).size == (160, 160)
    config, run = make_run(tmp_path, "report.full_size_megabytes=0", "report.gallery_images=8")
    run_report(config, run, str(tmp_path / "out"), Progress())
    assert not (tmp_path / "out" / "gallery").exists()
    page = (tmp_path / "out" / "gallery.html").read_text()
    assert "8 generated images of 48 (report.gallery_images)" in page
    config, run = make_run(tmp_path / "none", "report.gallery_images=0")
    run_report(config, run, str(tmp_path / "none" / "out"), Progress())
    assert not (tmp_path / "none" / "out" / "gallery.html").exists()
    assert 'href="gallery.html' not in (tmp_path / "none" / "out" / "index.html").read_text()

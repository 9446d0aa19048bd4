"""Pictures of docs/watching.md: terminal view, TensorBoard, optuna-dashboard, a comparison.

    python benchmarks/screenshots.py terminal RUN        # a run at work
    python benchmarks/screenshots.py boards RUN          # with search.storage, for Optuna's
    python benchmarks/screenshots.py compare RUN RUN

Needs playwright (`pip install playwright`) and a Chromium, CHROMIUM or /usr/bin/chromium.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console

from raysynth.compare.grids import named
from raysynth.compare.page import render
from raysynth.compare.read import known
from raysynth.jobs.status import read_status
from raysynth.view import Seen, Standing, live

IMAGES = Path(__file__).parent.parent / "docs/images"
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
PATIENCE_MS = 300_000


def terminal(root: str) -> None:
    """terminal.svg: what a terminal shows of a run, by its sign of life."""
    record = read_status(root).record
    fields = Standing._fields
    at = [Standing(*(each[name] for name in fields)) for each in record["now"] if each["stage"]]
    seconds = record["updated"] - record["started"]
    seen = Seen(record["stages"], record["made"], at, seconds)
    console = Console(record=True, width=112, file=io.StringIO(), force_terminal=True)
    console.print(live(seen))
    svg = console.export_svg(title="raysynth run")
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)  # of a server elsewhere
    (IMAGES / "terminal.svg").write_text(svg)


def boards(root: str) -> None:
    """tensorboard.png and optuna.png, of `raysynth dashboards`."""
    command = [sys.executable, "-m", "raysynth", "dashboards", root, "--port", "16206"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        told = {}
        for line in process.stdout or ():
            told[line.split()[0]] = line.split()[1]
            if line.startswith("Ctrl-C"):
                break
        with page_of(1440, 1000) as page:
            page.goto(f"{told['TensorBoard']}?runFilter=search%7Creferences&smoothing=0#timeseries")
            page.get_by_text("AGA").first.wait_for(timeout=PATIENCE_MS)
            page.wait_for_timeout(8000)
            shoot(page, "tensorboard.png")
            if told.get("Optuna", "").startswith("http"):
                page.goto(told["Optuna"])
                page.get_by_text(known(root).name).first.click(timeout=PATIENCE_MS)
                page.wait_for_timeout(12_000)
                shoot(page, "optuna.png")
    finally:
        process.terminate()
        process.wait(30)


def compare(*roots: str) -> None:
    """compare.png, the top of the page."""
    runs = [known(root) for root in roots]
    with tempfile.NamedTemporaryFile("w", suffix=".html") as file, page_of(1100, 1000) as page:
        file.write(render(runs, named(runs)))
        file.flush()
        page.goto(f"file://{file.name}")
        page.wait_for_timeout(1000)
        shoot(page, "compare.png")


@contextmanager
def page_of(width: int, height: int) -> Iterator[Any]:
    """A page of a Chromium without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": height})
        page.set_default_timeout(PATIENCE_MS)
        yield page
        browser.close()


def shoot(page: Any, name: str) -> None:
    """What the page shows, in 128 colours."""
    picture = Image.open(io.BytesIO(page.screenshot()))
    picture.convert("RGB").quantize(128).save(IMAGES / name, optimize=True)


def main() -> None:
    """What is drawn, and the runs it is drawn of."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = parser.add_subparsers(required=True)
    for draw, runs in ((terminal, 1), (boards, 1), (compare, "+")):
        part = parts.add_parser(draw.__name__, help=(draw.__doc__ or "").splitlines()[0])
        part.add_argument("runs", metavar="RUN", nargs=runs)
        part.set_defaults(draw=draw)
    asked = parser.parse_args()
    asked.draw(*asked.runs)


if __name__ == "__main__":
    main()

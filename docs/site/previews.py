"""The picture of adapters' previews: `python docs/site/previews.py RUN` after `raysynth train`."""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

from raysynth.storage.marks import Maker
from raysynth.strips import png

TO = Path(__file__).parents[1] / "images/adapters.png"


def write(run: Path, to: Path = TO) -> int:
    """Write the previews of a run's adapters side by side; how many there are."""
    found = [Image.open(file) for file in sorted(run.glob("adapters/*/preview.png"))]
    size = (sum(image.width for image in found), max(image.height for image in found))
    whole = Image.new("RGB", size, "white")
    left = 0
    for image in found:
        whole.paste(image, (left, 0))
        left += image.width
    whole.info["xmp"] = Maker().packet(edited=True)
    to.write_bytes(png(whole))
    return len(found)


if __name__ == "__main__":
    print(f"{write(Path(sys.argv[1]))} adapters")

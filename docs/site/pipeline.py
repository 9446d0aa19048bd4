"""docs/images/pipeline.svg: the stages as the code declares them, and what each of them reads."""

from __future__ import annotations

from collections.abc import Iterator

from raysynth.config.files import load_config
from raysynth.method import nodes_of

WIDTH, HEIGHT, LEFT, TOP, STEP, LANE = 154, 66, 16, 54, 190, 118
PLACES = {
    "ingest": (0, 0),
    "clustering": (1, 0),
    "finetune": (2, 0),
    "synthesis": (3, 0),
    "selection": (4, 0),
    "fidelity": (4, 1),
    "search": (5, 0),
    "references": (2, 2),
    "classification": (5, 2),
    "report": (6, 2),
}
"""Stage -> column and lane. `report` reads all of them; one arrow stands for these."""
WORDS = {
    "ingest": "photographs: a table",
    "clustering": "k-means in a group",
    "finetune": "an adapter each",
    "synthesis": "as many per group",
    "selection": "no copies; the best",
    "fidelity": "label shown? the gate",
    "search": "by validation WGA",
    "references": "real images alone",
    "classification": "the best is shipped",
    "report": "one page",
}
STYLE = """\
text { font: 15px system-ui, sans-serif; fill: #1d2733; text-anchor: middle }
.name { font-weight: 650 }
.what { font-size: 12.5px; fill: #44525f }
rect { fill: #fff; stroke: #8694a3 }
.made rect { fill: #e3f1ee; stroke: #17776b }
.judged rect { fill: #fdf1df; stroke: #a8670c }
path { fill: none; stroke: #5b6977; stroke-width: 1.6; marker-end: url(#tip) }
"""
KINDS = {
    "made": ("clustering", "finetune", "synthesis"),
    "judged": ("selection", "fidelity", "search"),
}


def edges() -> Iterator[tuple[str, str]]:
    """(Stage that is read, stage that reads it), as declared."""
    for node in nodes_of(load_config(None, [])):
        if node.name == "report":
            yield "classification", "report"
        else:
            yield from ((name, node.name) for name in node.reads)


def box(name: str) -> str:
    """A stage."""
    x, y = corner(name)
    kind = next((kind for kind, names in KINDS.items() if name in names), "plain")
    middle = x + WIDTH // 2
    return (
        f'<g class="{kind}"><rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="7"/>'
        f'<text class="name" x="{middle}" y="{y + 28}">{name}</text>'
        f'<text class="what" x="{middle}" y="{y + 49}">{WORDS[name]}</text></g>'
    )


def corner(name: str) -> tuple[int, int]:
    """Upper left corner of a stage's box."""
    column, lane = PLACES[name]
    return LEFT + column * STEP, TOP + lane * LANE


def arrow(first: str, then: str) -> str:
    """A line from a box to the box that reads it: along a lane, or down and across."""
    (x0, y0), (x1, y1) = corner(first), corner(then)
    middle = HEIGHT // 2
    if y0 == y1 and x1 - x0 == STEP:
        points = f"M{x0 + WIDTH} {y0 + middle} H{x1 - 2}"
    elif x0 == x1:
        points = f"M{x0 + WIDTH // 2} {y0 + HEIGHT} V{y1 - 2}"
    elif y0 == y1 and y0 == TOP:  # over the boxes between
        points = f"M{x0 + WIDTH // 2} {y0} V{y0 - 22} H{x1 + WIDTH // 2} V{y1 - 2}"
    elif y0 == y1:
        points = f"M{x0 + WIDTH} {y0 + middle} H{x1 - 2}"
    else:
        points = f"M{x0 + WIDTH // 2} {y0 + HEIGHT} V{y1 + middle} H{x1 - 2}"
    return f'<path d="{points}"/>'


def picture() -> str:
    """The whole picture as SVG."""
    width, height = LEFT * 2 + 6 * STEP + WIDTH, TOP + 2 * LANE + HEIGHT + 16
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
        "<title>The stages of a run and what each of them reads</title>",
        f"<style>{STYLE}</style>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0 L8 4 L0 8 z" '
        'style="fill:#5b6977;stroke:none;marker-end:none"/></marker></defs>',
        f'<rect width="{width}" height="{height}" rx="10" style="fill:#f7f9fb;stroke:none"/>',
        *(arrow(first, then) for first, then in edges()),
        *(box(name) for name in PLACES),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(picture(), end="")

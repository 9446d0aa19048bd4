"""Test images that a run's classifier gets wrong, as thumbnails."""

from __future__ import annotations

from dataclasses import dataclass

from raysynth.evaluation.kinds import OURS
from raysynth.report.content import Content
from raysynth.report.sheets import data_uri
from raysynth.report.tested import Tested
from raysynth.stages.run import Run
from raysynth.strips import thumbnails

MOST = 12
"""Images of a group that are shown."""


@dataclass(frozen=True)
class Thumbnail:
    """An image in the page, and what it is and is called."""

    source: str
    width: int
    height: int
    label: str
    attribute: str
    called: str


@dataclass(frozen=True)
class Wrong:
    """One group's images that most seeds call wrong: how many of how many, and some of them."""

    name: str
    total: int
    images: int
    shown: tuple[Thumbnail, ...]


def blamed(content: Content) -> str:
    """The method whose errors are shown: raysynth's own, or the one that is shipped without it."""
    if content.ours is not None:
        return OURS
    return content.model.name if content.model else ""


def misread(content: Content, tested: Tested | None, run: Run) -> list[Wrong]:
    """Of every group, the first `MOST` in order of how many seeds are wrong."""
    name = blamed(content)
    if tested is None or name not in tested.predicted:
        return []
    groups = tested.groups
    found = tested.misread(name)
    of = {g: [one for one in found if one.group == g] for g in range(groups.count)}
    shown = [one.id for each in of.values() for one in each[:MOST]]
    pixels = thumbnails(run.folder("ingest"), shown) if shown else {}
    return [
        Wrong(
            groups.names[g],
            len(each),
            int((tested.group == g).sum()),
            tuple(
                Thumbnail(
                    data_uri(pixels[one.id]),
                    *pixels[one.id].size,
                    groups.label_names[groups.label(g)],
                    groups.attribute_names[groups.attribute(g)],
                    groups.label_names[one.called],
                )
                for one in each[:MOST]
            ),
        )
        for g, each in of.items()
    ]

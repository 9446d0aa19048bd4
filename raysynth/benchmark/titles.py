"""What a table calls references and controls: those of different settings are different rows.

Rows of raysynth share the references that their settings give alike. Where a row changes them (its
backbone, image size, batches, budgets, data), its own have its name in brackets: `erm [wide]`.
"""

from __future__ import annotations

from collections.abc import Sequence

from raysynth.benchmark.cells import Cell
from raysynth.config.config import Config
from raysynth.knobs import digest_of
from raysynth.references.declared import REFERENCES


def reference_titles(cells: Sequence[Cell]) -> dict[tuple[str, str], str]:
    """(Row, plain title) -> title: plain for the first row's, and for all that are alike."""
    found: dict[tuple[str, str], str] = {}
    alike: dict[str, dict[str, str]] = {}  # plain title -> settings -> title
    for row, config in {cell.row: cell.config for cell in cells}.items():
        references = config.references
        for kind, names in (("reference", references.names), ("control", references.controls)):
            settings = _settings(config, kind)
            for plain in (plain_title(config, name, kind) for name in names):
                titles = alike.setdefault(plain, {})
                titles.setdefault(settings, f"{plain} [{row}]" if titles else plain)
                found[row, plain] = titles[settings]
    return found


def plain_title(config: Config, name: str, kind: str) -> str:
    """Name of a reference or control, and whether it starts pretrained."""
    if kind == "reference" and config.for_references().classifier.starts_pretrained:
        return f"{name} (pretrained)"
    return name


def without_row(title: str) -> str:
    """The plain title of one that may name a row."""
    return title.partition(" [")[0]


def _settings(config: Config, kind: str) -> str:
    """Digest of what the numbers come from, beside the severity, the seed and the title itself."""
    dataset = config.dataset.model_dump(mode="json", exclude={"severity"})
    if kind == "control":
        classifier, clip = config.classifier.model_dump(mode="json"), config.base.clip
        images = {name: classifier[name] for name in ("image_size", "precision")}
        return digest_of([dataset, images, clip, config.references.head_weight_decays])
    decides = dict(REFERENCES.decided_by(config))
    own = {k: v for k, v in decides["knobs"].items() if k not in ("names", "controls")}
    return digest_of([dataset, own, decides["classifier"]])

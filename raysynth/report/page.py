"""index.html: the content of a run through the page's template."""

from __future__ import annotations

import math
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from raysynth.report.content import Content
from raysynth.report.copies import PairSheet
from raysynth.report.departures import departures
from raysynth.report.fidelity import marks
from raysynth.report.plots import Plot
from raysynth.report.sheets import Sheet, data_uri
from raysynth.selection.rule import RULES
from raysynth.selection.settings import SelectionConfig
from raysynth.strips import Strip

WHAT = {
    "ingest": "photographs to the real table",
    "grouping": "attributes that are not known, found",
    "clustering": "embeddings, k-means per group",
    "finetune": "fine-tuning of the base model",
    "synthesis": "generation and CLIP scores",
    "audit": "which group's images a generated one owes what",
    "selection": "copies out, the best of each group kept",
    "fidelity": "kept images beside real ones: label, likeness, spread",
    "references": "real-only references and controls, on test once",
    "search": "Ray Tune, on validation",
    "classification": "the winner trained again, on test once; the best on validation shipped",
}


def render(
    content: Content, sheets: list[Sheet], pairs: list[PairSheet], plots: dict[str, Plot]
) -> str:
    """The whole page as one string: styles, images and plots are inside it."""
    environment = Environment(
        loader=PackageLoader("raysynth.report"),
        autoescape=select_autoescape(["html", "j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "marks": marks,
        "percent": percent,
        "number": number,
        "seconds": seconds,
        "src": _source,
    }
    template = environment.get_template("index.html.j2")
    style = environment.loader.get_source(environment, "style.css")[0]  # type: ignore[union-attr]
    page: str = template.render(
        c=content,
        changed=list(departures(content.config)),
        config_yaml=yaml.safe_dump(content.config.model_dump(mode="json"), sort_keys=False),
        names=content.groups.names,
        pairs=pairs,
        plots=plots,
        seeds=max((len(method.wga.seeds) for method in content.methods), default=0),
        sheets={g: [s for s in sheets if s.group == g] for g in range(content.groups.count)},
        selection_rule=_selection_rule(content.config.selection),
        stages=[
            (name, what, content.timings.get(name, 0.0))
            for name, what in WHAT.items()
            if name not in ("grouping", "audit") or name in content.timings
        ],
        stopped=_stopped_early(content),
        style=style,
        versions=_versions(content),
    )
    return page


def percent(share: float, digits: int = 1) -> str:
    """0.4567 -> 45.7; what does not exist (NaN): –."""
    return "–" if math.isnan(share) else f"{100 * share:.{digits}f}"


def number(value: Any) -> str:
    """Thousands separated; floats to three significant digits; the rest as it is."""
    if isinstance(value, list | tuple):
        return " / ".join(number(item) for item in value)
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return "–" if math.isnan(value) else str(value)
    if isinstance(value, float) and value != int(value):
        return f"{value:.3g}"
    return f"{value:,.0f}" if isinstance(value, int | float) else str(value)


def seconds(value: float) -> str:
    """8.3 s, 72 s, 3 min 20 s."""
    if value < 100:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _selection_rule(selection: SelectionConfig) -> str:
    """Who is kept, as a sentence's end."""
    kept = RULES[selection.rule].said(selection)
    return kept + (", shared equally by the clusters" if selection.per_cluster else "")


def _source(strip: Strip) -> str:
    return data_uri(strip.image) if strip.image is not None else ""


def _stopped_early(content: Content) -> int:
    """Trials that ASHA ended before the others."""
    trials = content.trials
    return 0 if trials.empty else int((trials["reached"] < trials["reached"].max()).sum())


def _versions(content: Content) -> dict[str, str]:
    """Versions recorded by the stage that decides the numbers."""
    stages = content.manifest["stages"]
    last = next((name for name in reversed(content.order) if name in stages), None)
    return dict(stages[last].get("versions", {})) if last else {}

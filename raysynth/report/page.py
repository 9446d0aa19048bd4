"""index.html: the content of a run through the page's template."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import yaml
from jinja2 import Environment
from markupsafe import Markup, escape

from raysynth.evaluation.paired import METHOD
from raysynth.groups.groups import FEW
from raysynth.pace import duration
from raysynth.pages import templates
from raysynth.report import bias
from raysynth.report.case import Case
from raysynth.report.charts import charts
from raysynth.report.content import Content
from raysynth.report.copies import PairSheet
from raysynth.report.costs import cost, stages
from raysynth.report.departures import departures
from raysynth.report.fidelity import marks
from raysynth.report.gallery import Gallery, groups_of, in_words, scripted
from raysynth.report.misread import MOST, Wrong, blamed
from raysynth.report.plots import Plot
from raysynth.report.reproduce import command, folder, versions
from raysynth.report.searched import importances, notes
from raysynth.report.sheets import Sheet, data_uri
from raysynth.report.tested import Tested
from raysynth.report.verdict import judge
from raysynth.selection.rule import RULES
from raysynth.selection.settings import SelectionConfig
from raysynth.strips import Strip, is_small
from raysynth.terminal import masked

CODE = re.compile(
    r"`([^`]+)`|\b((?:[a-z_]+\.[a-z_]+|(?:seed|generator)(?==))(?:=(?:\[[^]]*\]|[\w.-]*\w))?)"
)
"""`code`, or a setting that is named in a sentence, perhaps with a value."""

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


@dataclass(frozen=True)
class Shown:
    """What is on the page beside a run's content."""

    sheets: Sequence[Sheet] = ()
    pairs: Sequence[PairSheet] = ()
    plots: Mapping[str, Plot] = field(default_factory=dict)
    wrong: Sequence[Wrong] = ()
    gallery: Gallery | None = None
    """What is in gallery.html, if there is one."""


def render(content: Content, tested: Tested | None, shown: Shown) -> str:
    """The whole page as one string: styles, images, plots and scripts are inside it."""
    environment = _environment()
    template = environment.get_template("index.html.j2")
    names = range(content.groups.count)
    page: str = template.render(
        c=content,
        names=content.groups.names,
        pairs=shown.pairs,
        plots=shown.plots,
        charts={name: scripted(values) for name, values in charts(content, shown.gallery).items()},
        gallery=shown.gallery.count if shown.gallery else 0,
        sheets={g: [s for s in shown.sheets if s.group == g] for g in names},
        scripts=_scripts(environment),
        style=_text(environment, "style.css"),
        **_of_data(content),
        **_of_results(content, tested, shown),
        **_of_search(content),
        **_of_run(content),
    )
    return page


def render_gallery(content: Content, gallery: Gallery) -> str:
    """gallery.html as one string: its thumbnails are inside it."""
    environment = _environment()
    page: str = environment.get_template("gallery.html.j2").render(
        c=content,
        gallery_style=_text(environment, "gallery.css"),
        groups=[scripted(group) for group in groups_of(gallery, content)],
        knows_label=bool(gallery.made["shows"].notna().any()),
        names=content.groups.names,
        said=in_words(gallery),
        script=_text(environment, "gallery.js"),
        style=_text(environment, "style.css"),
    )
    return page


def _environment() -> Environment:
    return templates(
        "raysynth.report",
        coded=coded,
        marks=marks,
        percent=percent,
        number=number,
        scaled=_scaled,
        duration=duration,
        signed=signed,
        src=_source,
    )


def _scripts(environment: Environment) -> str:
    """The library of plots and what the page does with it, inside `<script>`."""
    library = (files("raysynth.report") / "vendor" / "echarts.min.js").read_text()
    return "".join(f"<script>{text}</script>" for text in (library, _text(environment, "page.js")))


def _text(environment: Environment, name: str) -> str:
    """A file beside the templates, as it is."""
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def _of_data(content: Content) -> dict[str, Any]:
    return {
        "bias": bias.answer(content),
        "dataset": dataset_in_words(content.config),
        "erm": bias.erm_of(content),
        "few": bias.few(content),
        "generated": bias.generated(content),
        "least": FEW,
        "selection_rule": _selection_rule(content.config.selection),
    }


def _of_results(content: Content, tested: Tested | None, shown: Shown) -> dict[str, Any]:
    measured = content.results.get("methods", {})
    budgets = {name: row.get("budget") for name, row in measured.items()}
    by = next((method for method in content.methods if method.name == blamed(content)), None)
    return {
        "budgets": {name: budget for name, budget in budgets.items() if budget},
        "control": Case(content, tested).control,
        "differences": tested.differences if tested else {},
        "errors": _errors(content, tested),
        "misread": shown.wrong,
        "misread_by": by.title if by else "",
        "misread_most": MOST,
        "paired_method": METHOD,
        "seeds": max((len(method.wga.seeds) for method in content.methods), default=0),
        "verdict": judge(content, tested),
    }


def _errors(content: Content, tested: Tested | None) -> list[dict[str, Any]]:
    """Title and rates of those methods whose errors a reader compares: at most five."""
    asked = (
        *(bias.erm_of(content), content.best_reference, Case(content, tested).control),
        *(content.model, content.ours),
    )
    named = {method.name: method for method in asked if method is not None}
    return [
        {"title": method.title, "rates": tested.rates(name)}
        for name, method in named.items()
        if tested is not None and name in tested.predicted
    ]


def _of_search(content: Content) -> dict[str, Any]:
    return {"importances": importances(content), "search_notes": notes(content)}


def _of_run(content: Content) -> dict[str, Any]:
    config = content.config
    return {
        "changed": list(departures(config)),
        "command": command(config),
        "config_yaml": yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False),
        "cost": cost(content, duration(sum(content.timings.values()))),
        "folder": folder(config),
        "stages": stages(content, WHAT),
        "versions": versions(content),
    }


def dataset_in_words(config: Any) -> str:
    """Which data a run is on: a folder by its name, and how biased it was made."""
    dataset = config.dataset
    named = dataset.name
    if dataset.path:
        named = f"{named} {masked(str(dataset.path)).rstrip('/').rsplit('/', 1)[-1]}"
    if dataset.severity == "original":
        return f"{named}, as biased as it is"
    return f"{named} at severity {dataset.severity}"


def coded(text: str) -> Markup:
    """Commands and settings in a sentence, set as code."""
    return Markup(CODE.sub(r"<code>\1\2</code>", str(escape(text))))  # escaped


def signed(share: float) -> str:
    """0.125 -> +12.5, with a true minus sign."""
    return "–" if math.isnan(share) else f"{100 * share:+.1f}".replace("-", "−")


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


def _selection_rule(selection: SelectionConfig) -> str:
    """Who is kept, as a sentence's end."""
    kept = RULES[selection.rule].said(selection)
    return kept + (", shared equally by the clusters" if selection.per_cluster else "")


def _scaled(strip: Strip, beside: Sequence[Strip]) -> Markup:
    """Attributes of a strip's picture that draw its images as large as those of the others."""
    assert strip.image is not None
    widest = max(each.image.width for each in beside if each.image is not None)
    sharp = Markup(' class="sharp"') if is_small(strip.image) else Markup("")
    return sharp + Markup(' style="width:{:.1f}%"').format(100 * strip.image.width / widest)


def _source(strip: Strip) -> str:
    return data_uri(strip.image) if strip.image is not None else ""

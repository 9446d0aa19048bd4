"""The model card of a classifier that is shipped or exported."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from huggingface_hub import ModelCardData
from numpy.typing import NDArray

from raysynth.classify.hub_header import data_name, hub_header
from raysynth.classify.licences import of_data, of_model
from raysynth.datasets.settings import DatasetConfig
from raysynth.evaluation.final import Final
from raysynth.evaluation.kinds import OURS
from raysynth.evaluation.results import INFERRED
from raysynth.evaluation.shipping import candidates
from raysynth.groups.groups import Groups
from raysynth.knobs import Sections
from raysynth.models.hub import OWN, commits, public_name
from raysynth.models.quantisation import in_words
from raysynth.models.settings import BaseConfigSection
from raysynth.models.sources import is_path
from raysynth.networks.build import blueprint_of
from raysynth.networks.settings import ClassifierConfig
from raysynth.references.reference import REFERENCES
from raysynth.references.titles import title_of
from raysynth.training.two_stage import REAL_SHARE

MEASURES = ("wga", "aga", "weighted")
CARD = """\
---
{header}
---
# {labels}: a classifier trained with raysynth

Tells {labels} apart in images whose {attributes} must not matter. {training}{inferred}

## Load
```python
from transformers import AutoImageProcessor, AutoModelForImageClassification

folder = "path/to/this/folder"
processor = AutoImageProcessor.from_pretrained(folder)
model = AutoModelForImageClassification.from_pretrained(folder{trust}).eval()
```
{code}
## Data set
`{dataset}`, severity {severity} (share of bias-aligned training images within a class), run seed
{run_seed}. Synthetic images: {images}.{commits}

| group (label/attribute) | real training images | test accuracy |
| --- | --- | --- |
{rows}

## Metrics (test, shares of 1)
| | this model | mean of {seeds} seed(s) |
| --- | --- | --- |
| worst group (WGA) | {wga:.3f} | {mean_wga:.3f} |
| average over groups (AGA) | {aga:.3f} | {mean_aga:.3f} |
| weighted by training share | {weighted:.3f} | {mean_weighted:.3f} |

## Why this model
{why}

Mean validation WGA of all that was trained: {compared}. Test decided nothing.

## Intended use
Research on group robustness: comparing trainings under spurious correlation, on images like the
data set's.

## Limits
Measured on the groups above only: other attributes may carry other biases. {limit}The worst group's
accuracy rests on few test images of that group. Not for decisions about people.

## Licence
{licences} What may be done with the model follows from these.
"""
OWN_CODE = """
transformers has no such architecture: `trust_remote_code=True` runs the Python code of this
folder, which needs torch and transformers alone. Where raysynth is installed,
`import raysynth.networks.pretrained` does instead, and no file of the folder is run.
"""
ONNX = """
`model.onnx` takes `pixel_values` [batch, 3, size, size] float32 and gives `logits`; the names of
the labels, the size and the mean and deviation of pixels in [0, 1] are in its metadata, as JSON.
"""
SYNTHETIC_LIMIT = "Synthetic images\nbring along what the base model knows and believes. "


@dataclass(frozen=True)
class Origin:
    """Where a model comes from: the run, and which of its classifiers it is.

    `groups`, `counts`: of the test images and, [G], the real training images of each. `methods`:
    rows as in results.json. `shipped`: what the run shipped, see `evaluation.shipping`.
    """

    config: Sections
    groups: Groups
    counts: NDArray[Any]
    methods: Mapping[str, Mapping[str, Any]]
    shipped: Mapping[str, Any]
    final: Final

    @property
    def row(self) -> Mapping[str, Any]:
        """The method's."""
        return self.methods[self.final.method]

    @property
    def plan(self) -> Mapping[str, Any]:
        """The training."""
        found: Mapping[str, Any] = self.final.record["plan"]
        return found

    @property
    def has_synthetic(self) -> bool:
        """Whether a phase of the training, or its head, had synthetic images."""
        phases = (phase for phase in self.plan["phases"] if phase["steps"])
        heads = (spec for spec in self.plan["heads"] if spec.get("real_share", 1.0) < 1)
        return any(not phase["images"].startswith("real") for phase in phases) or any(heads)


def model_card(origin: Origin, own: bool, onnx: bool = False) -> str:
    """Markdown with the Hub's metadata header.

    `own`: loading the model takes its folder's code. `onnx`: it is there in ONNX too.
    """
    config, groups = origin.config, origin.groups
    return CARD.format(
        header=_header(origin).to_yaml(),
        labels=", ".join(map(plain, groups.label_names)),
        attributes=" or ".join(map(plain, groups.attribute_names)),
        training=_training(origin),
        inferred=f"\n\n{INFERRED[:1].upper()}{INFERRED[1:]}." * groups.found,
        trust=", trust_remote_code=True" if own else "",
        code=OWN_CODE * own + ONNX * onnx,
        dataset=data_name(config[DatasetConfig]).replace("`", "'"),
        severity=config[DatasetConfig].severity,
        run_seed=config.seed,
        images=_images(origin),
        commits="".join(f" `{name}`: commit `{c}`." for name, c in _commits(origin).items()),
        why=plain(_why(origin)),
        compared=plain(_compared(origin)),
        limit=SYNTHETIC_LIMIT * origin.has_synthetic,
        licences=" ".join(_licences(origin)),
        **_metrics(origin),
    )


def _header(origin: Origin) -> ModelCardData:
    config, final = origin.config, origin.final
    data, backbone = config[DatasetConfig], _backbone(config)
    tags = ["raysynth", "group-robustness", *["synthetic-data"] * origin.has_synthetic]
    base = None if backbone in OWN or is_path(backbone) else backbone
    name = f"{final.method}-{data_name(data)}"
    return hub_header(name, data, origin.row, final.seed, tags, base)


def _backbone(config: Sections) -> str:
    """The network that the classifier was trained from, as the configuration names it."""
    return str(blueprint_of(config).resolved().backbone)


def _licences(origin: Origin) -> Iterator[str]:
    """Whose licences a model's follows from."""
    config, base = origin.config, origin.config[BaseConfigSection]
    yield f"Data set: {plain(of_data(config[DatasetConfig]))}."
    if origin.has_synthetic:
        yield f"Base model of the synthetic images: {plain(of_model(base.name, base.revision))}."
    yield f"Network: {plain(of_model(_backbone(config)))}."


def _metrics(origin: Origin) -> dict[str, Any]:
    """The test numbers of the seed, and of its method's seeds on average."""
    row, seed = origin.row, origin.final.seed
    found = {key: row[key]["seeds"][seed] for key in MEASURES}
    found |= {f"mean_{key}": float(np.mean(row[key]["seeds"])) for key in MEASURES}
    rows = "\n".join(
        f"| {plain(name)} | {count} | {row['groups'][name]['seeds'][seed]:.3f} |"
        for name, count in zip(origin.groups.names, origin.counts, strict=True)
    )
    return found | {"rows": rows, "seeds": len(row["wga"]["seeds"])}


def _images(origin: Origin) -> str:
    """Whose synthetic images it was trained on."""
    if not origin.has_synthetic:
        return "none; it was trained on real ones alone"
    config = origin.config
    base = config[BaseConfigSection]
    named = f"`{public_name(base.name)}`{in_words(base)}"
    return f"generator `{config.generator}`, base model {named}"


def _commits(origin: Origin) -> dict[str, str]:
    """Commits of the hub's models that it is made of: the backbone, and of those behind images."""
    backbone = _backbone(origin.config)
    known = commits(origin.config).items()
    return {name: c for name, c in known if origin.has_synthetic or name == backbone}


def _why(origin: Origin) -> str:
    """Why this model, and which of the method's seeds it is."""
    final, shipped = origin.final, origin.shipped
    seed = f"Of {title_of(final.method)}'s seeds this is number {final.seed}"
    if final.seed == candidates(origin.methods)[final.method].best_seed:
        seed += ", which has the best validation score"
    if final.method == shipped["name"]:
        return f"{shipped['words']} {seed}."
    return f"Exported by name; the run shipped another. {shipped['words']} {seed}."


def _compared(origin: Origin) -> str:
    found = candidates(origin.methods).values()
    return ", ".join(f"{title_of(one.name)} {100 * one.mean:.1f} %" for one in found)


def plain(text: str) -> str:
    """Markdown in which names are names: no table cell, link, HTML or line of their own."""
    return re.sub(r"([\\`*_{}\[\]<>()#!|~&$])", r"\\\1", " ".join(text.split()))


def _training(origin: Origin) -> str:
    """How the model was trained, in words."""
    config, row, plan = origin.config, origin.row, origin.plan
    if row["kind"] == OURS:
        first, head = plan["phases"][0], plan["heads"][0]
        asked = {name: first[name] for name in ("ratio", "steps")}
        asked["head_real_share"] = head.get("real_share", 1.0)
        asked[REAL_SHARE] = first["real_share"]
        return training_in_words(config[ClassifierConfig], asked)
    name, last = origin.final.method, plan["phases"][-1]
    about = f"{plain(REFERENCES.about(name))}. " if name in REFERENCES else ""
    images = "the real images alone, as a reference"
    if row["kind"] == "mixture":
        images = "real and synthetic images, as a mixture"
        images += f" ({row['synthetic']['used']:,} synthetic ones)" if "synthetic" in row else ""
    also = ""
    if row["uses_validation"]:
        also = " Its last layer was fitted to validation images too."
    return (
        f"The classifier was trained on {images}: {plain(title_of(name))}. {about}Learning rate "
        f"{last['learning_rate']:g}, weight decay {last['weight_decay']:g}, stopped by validation "
        f"at step {origin.final.step} of {last['steps']}; last layer: {origin.final.head}.{also} "
        f"Source: {plain(row['source'])}."
    )


def training_in_words(settings: ClassifierConfig, parameters: Mapping[str, Any]) -> str:
    """How raysynth's own classifier was trained, in one sentence or two.

    `parameters`: see `two_stage.plan_of`.
    """
    ratio, share = float(parameters["ratio"]), float(parameters.get("head_real_share", 1.0))
    synthetic = f"group-balanced synthetic images, {ratio:g} per real one at most"
    stage_one = synthetic if ratio else "the real images, no synthetic ones"
    objective = settings.head_objective
    if settings.schedule == "joint":
        weight = float(parameters.get(REAL_SHARE, settings.real_share))
        weights = f" (weights {weight:g} and {1 - weight:g})"
        also = f" and on {synthetic}, together{weights}" if ratio else ", no synthetic ones"
        mixed = f", {settings.mix:.0%} of batches mixed" if settings.mix else ""
        return f"The classifier was trained on the real images ({objective}){also}{mixed}."
    second = f"trained all weights ({objective}) on the real training images"
    if settings.schedule == "head":
        images = "the real training images"
        if ratio and share < 1:
            images += f" (weight {share:g}) and the synthetic ones (weight {1 - share:g})"
        second = f"fitted the linear head ({objective}) on {images}, encoder frozen"
    first = f"Stage 1 trained the encoder on {stage_one}"
    if not parameters["steps"]:
        first = (
            f"Stage 1 was left out (encoder: {public_name(settings.backbone)}, as it was loaded)"
        )
    return f"{first}; stage 2 {second}."

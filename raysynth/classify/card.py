"""The model card that is shipped with the classifier."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raysynth.datasets.settings import DatasetConfig
from raysynth.groups.groups import Groups
from raysynth.knobs import Sections
from raysynth.models.hub import commits
from raysynth.models.settings import BaseConfigSection
from raysynth.networks.settings import ClassifierConfig

CARD = """\
---
library_name: transformers
pipeline_tag: image-classification
tags: [raysynth, group-robustness, synthetic-data]
metrics: [worst-group-accuracy, average-group-accuracy]
---
# {labels}: a classifier trained with raysynth

Tells {labels} apart in images whose {attributes} must not matter. {training}

## Load
```python
{load}from transformers import AutoImageProcessor, AutoModelForImageClassification

processor = AutoImageProcessor.from_pretrained("path/to/this/folder")
model = AutoModelForImageClassification.from_pretrained("path/to/this/folder").eval()
```

## Data set
`{dataset}`, severity {severity} (share of bias-aligned training images within a class), run seed
{run_seed}. Synthetic images: generator `{generator}`, base model `{base}`.{commits}

| group (label/attribute) | real training images | test accuracy |
| --- | --- | --- |
{rows}

## Metrics (test, shares of 1)
| | this model | mean of {seeds} seed(s) |
| --- | --- | --- |
| worst group (WGA) | {wga:.3f} | {mean_wga:.3f} |
| average over groups (AGA) | {aga:.3f} | {mean_aga:.3f} |
| weighted by training share | {weighted:.3f} | {mean_weighted:.3f} |

This seed was shipped for the best validation WGA; test decided nothing.
{preference}
## Intended use
Research on group robustness: comparing trainings under spurious correlation, on images like the
data set's.

## Limits
Measured on the groups above only: other attributes may carry other biases. Synthetic images bring
along what the base model knows and believes. The worst group's accuracy rests on few test images
of that group. Not for decisions about people.
"""


def model_card(
    config: Sections,
    groups: Groups,
    counts: NDArray[Any],
    plan: dict[str, Any],
    metrics: dict[str, Any],
    seeds: Sequence[dict[str, Any]],
    own: bool,
    preference: str = "",
) -> str:
    """Markdown with the Hub's metadata header.

    Parameters
    ----------
    counts : [G] real training images; plan : the shipped training; metrics : its test metrics;
        seeds : test metrics of all seeds of the same training; own : the model is raysynth's,
        loading it takes an import; preference : what validation prefers to this model, in words.
    """
    names = groups.names
    means = {
        key: float(np.mean([seed[key] for seed in seeds])) for key in ("wga", "aga", "weighted")
    }
    first, head = plan["phases"][0], plan["heads"][0]
    parameters = {name: first[name] for name in ("ratio", "steps")}
    parameters["head_real_share"] = head["real_share"]
    return CARD.format(
        labels=", ".join(map(plain, groups.label_names)),
        attributes=" or ".join(map(plain, groups.attribute_names)),
        preference=f"\n{plain(preference)}\n" if preference else "",
        training=training_in_words(config[ClassifierConfig], parameters),
        load="import raysynth.networks.pretrained  # registers the model\n" if own else "",
        dataset=config[DatasetConfig].name,
        severity=config[DatasetConfig].severity,
        run_seed=config.seed,
        generator=config.generator,
        base=public_name(config[BaseConfigSection].name),
        commits="".join(f" `{name}`: commit `{c}`." for name, c in commits(config).items()),
        rows="\n".join(
            f"| {plain(name)} | {count} | {metrics['groups'][name]:.3f} |"
            for name, count in zip(names, counts, strict=True)
        ),
        seeds=len(seeds),
        wga=metrics["wga"],
        aga=metrics["aga"],
        weighted=metrics["weighted"],
        mean_wga=means["wga"],
        mean_aga=means["aga"],
        mean_weighted=means["weighted"],
    )


def plain(text: str) -> str:
    """Markdown in which names are names: no table cell, link, HTML or line of their own."""
    return re.sub(r"([\\`*_{}\[\]<>()#!|~&$])", r"\\\1", " ".join(text.split()))


def public_name(model: str) -> str:
    """A model's name on the hub; of a folder only the last part, and nothing that ends a code span.

    Where a model lay on the machine that trained is nobody's business.
    """
    folder = model.startswith(("/", "~", ".")) or model.count("/") > 1 or "\\" in model
    name = re.split(r"[/\\]", model.rstrip("/\\"))[-1] if folder else model
    return " ".join(name.replace("`", "'").split())


def training_in_words(settings: ClassifierConfig, parameters: Mapping[str, Any]) -> str:
    """How raysynth's own classifier was trained, in one sentence or two.

    `parameters`: see `two_stage.plan_of`.
    """
    ratio, share = float(parameters["ratio"]), float(parameters.get("head_real_share", 1.0))
    synthetic = f"group-balanced synthetic images, {ratio:g} per real one at most"
    stage_one = synthetic if ratio else "the real images, no synthetic ones"
    objective = settings.head_objective
    if settings.schedule == "joint":
        also = f" and on {synthetic}, together" if ratio else ", no synthetic ones"
        return f"The classifier was trained on the real images ({objective}){also}."
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

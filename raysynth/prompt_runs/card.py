"""The card of images of prompts: how to load them, what is in them, what made them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData

from raysynth.classify.card import plain
from raysynth.classify.licences import of_model
from raysynth.models.hub import commits, public_name
from raysynth.models.quantisation import in_words
from raysynth.prompt_runs.rows import Rows
from raysynth.prompt_runs.settings import GenerateConfig
from raysynth.publish.data_card import MARKS
from raysynth.publish.form import FORMS
from raysynth.storage.files import write_atomic
from raysynth.storage.marks import CODES

CARD = "README.md"
TEXT = """\
---
{header}
---
# {name}

{images} images that raysynth drew for {prompts} prompts, base model `{base}`{commits}.

| adapter | images |
| --- | --- |
{rows}

## Load
```python
{load}```

`id` is `<adapter>-<row of the prompts, from 0>-<number>`; `prompt`, `negative_prompt`, `seed`,
`steps` and `guidance_scale` are each image's own, and give it again in diffusers (solver:
`{solver}`). Scores: {scores}.

## Marks
{marks}

## Licence
Base model: {licence}. What may be done with the images follows from that and from the adapters'
licences.
"""


def write_card(
    config: GenerateConfig,
    rows: Rows,
    facts: Mapping[str, Any],
    folder: str,
    form: str = "parquet",
) -> None:
    """Write the card of images in a folder or URI; `form`: that of their files."""
    counts = zip(rows.groups.names, rows.counts.tolist(), strict=True)
    scorers = [f"`{one.name}`" for one in config.synthesis.scorers]
    found = "".join(f", commit {commit}" for commit in commits(config).values())
    text = TEXT.format(
        header=_header(config).to_yaml(),
        name=plain(config.name),
        images=f"{facts['rows']:,}",
        prompts=f"{len(rows.prompts):,}",
        base=public_name(config.base.name),
        commits=in_words(config.base) + found,
        rows="\n".join(f"| {plain(name)} | {count:,} |" for name, count in counts),
        load=FORMS[form].load.format(folder="path/to/this/folder"),
        solver=config.synthesis.solver,
        scores=", ".join(scorers) or "none",
        marks=MARKS.format(codes=CODES),
        licence=of_model(config.base.name, config.base.revision),
    )
    write_atomic(f"{folder}/{CARD}", str(DatasetCard(text)).encode())


def _header(config: GenerateConfig) -> DatasetCardData:
    """The Hub's metadata; without `configs`, see `publish.data_card`."""
    return DatasetCardData(
        license="unknown",
        task_categories=["text-to-image"],
        tags=["synthetic", "raysynth"],
        pretty_name=config.name,
    )

"""A card and a picture beside every adapter: its folder can be looked at, and uploaded as it is."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from huggingface_hub import ModelCardData
from PIL import Image

from raysynth.adapter_runs.settings import TrainConfig
from raysynth.adapters.record import Adapter, maker_of, read_adapter
from raysynth.classify.card import plain
from raysynth.classify.licences import of_model
from raysynth.finetune.jobs import Job
from raysynth.finetune.kept_previews import IMAGES, previews_of, read
from raysynth.models.hub import OWN, public_name
from raysynth.models.quantisation import in_words
from raysynth.models.sources import is_path
from raysynth.storage.files import exists, write_atomic
from raysynth.strips import COLUMNS, Strip, captioned, mosaic, png, spaced, thumbnails

CARD, PICTURE = "README.md", "preview.png"
WRITERS = 16
TEXT = """\
---
{header}
---
# {name}

A LoRA adapter of {base}, trained by raysynth on {images} images. Prompt: {prompt}.

{picture}```python
from diffusers import DiffusionPipeline

pipeline = DiffusionPipeline.from_pretrained({source})
pipeline.load_lora_weights("path/to/this/folder")
image = pipeline({example}).images[0]
```

Rank {rank}, alpha {alpha:g}, {steps} steps; mean loss of the last tenth of them {loss:.4f}
(`losses.json` has every step's).

Base model's licence: {licence}. What may be done with the adapter follows from that and from the
licence of the images.
"""


def write_cards(config: TrainConfig, jobs: Sequence[Job], real: str, work: str) -> None:
    """Write what is missing of the adapters' cards and pictures.

    Parameters
    ----------
    real, work : folders or URIs of the images' table and of the adapters.
    """
    left = [job for job in jobs if not exists(f"{work}/{job.name}/{CARD}")]
    drawn = previews_of(work, [job.name for job in left])
    shown = {job.name: _some(job) for job in left if job.name in drawn}
    photographs = thumbnails(real, [i for ids in shown.values() for i in ids]) if shown else {}
    write = partial(_write, config, work)
    with ThreadPoolExecutor(WRITERS) as writers:
        ended = [
            writers.submit(
                write,
                job,
                drawn.get(job.name, [(0, "")])[-1][0],
                [photographs[i] for i in shown.get(job.name, [])],
            )
            for job in left
        ]
        for each in ended:
            each.result()


def _some(job: Job) -> list[str]:
    """A few of an adapter's images."""
    return [job.ids[place] for place in spaced(len(job.ids), COLUMNS)]


def _write(
    config: TrainConfig, work: str, job: Job, step: int, photographs: Sequence[Image.Image]
) -> None:
    """An adapter's picture, if it has previews, and its card, last."""
    folder = f"{work}/{job.name}"
    record = read_adapter(folder)
    assert record is not None, f"{folder}: trained"
    picture = read(folder, step) if photographs else None
    if picture is not None:
        write_atomic(f"{folder}/{PICTURE}", _picture(config, job, step, picture, photographs))
    text = _text(config, job, record, pictured=picture is not None)
    write_atomic(f"{folder}/{CARD}", text.encode())


def _picture(
    config: TrainConfig,
    job: Job,
    step: int,
    preview: np.ndarray,
    photographs: Sequence[Image.Image],
) -> bytes:
    """Some of the images and the last preview, as one picture that says what it is."""
    drawn = [Image.fromarray(each) for each in np.split(preview, IMAGES, 1)]
    packet = maker_of(config.base, {}).packet(job.name)
    side = max(side for each in (photographs or drawn) for side in each.size)
    for image in drawn:
        image.thumbnail((side, side))
        image.info["xmp"] = packet
    strips = [
        Strip("its images", len(job.ids), mosaic(photographs)),
        Strip(f"drawn at step {step:,}", len(drawn), mosaic(drawn)),
    ]
    return png(captioned(job.name, strips))


def _text(config: TrainConfig, job: Job, record: Adapter, *, pictured: bool) -> str:
    base = config.base
    hub = base.name if base.name not in OWN and not is_path(base.name) else None
    named = "raysynth's embedded base" if base.name in OWN else f"`{public_name(base.name)}`"
    prompt = next(iter(job.captions), "") or job.prompts[job.group]
    header = ModelCardData(
        library_name="diffusers",
        pipeline_tag="text-to-image",
        license="unknown",
        tags=["lora", "diffusers", "text-to-image", "raysynth"],
        base_model=hub,
        instance_prompt=prompt,
        widget=[{"text": prompt, "output": {"url": PICTURE}}] if pictured else None,
    )
    return TEXT.format(
        header=header.to_yaml(),
        name=plain(job.name),
        base=named + in_words(base),
        images=len(job.ids),
        prompt=_said(job),
        picture=f"![Some of its images, and drawn ones]({PICTURE})\n\n" if pictured else "",
        source=repr(hub or "path/to/the/base"),
        example=repr(prompt),
        rank=config.finetune.rank,
        alpha=config.finetune.alpha,
        steps=record.steps,
        loss=record.loss,
        licence=of_model(base.name, base.revision),
    )


def _said(job: Job) -> str:
    if not job.captions:
        return plain(job.prompts[job.group])
    more = len(set(job.captions)) - 1
    return f"{plain(job.captions[0])}{f', and {more} more captions' if more else ''}"

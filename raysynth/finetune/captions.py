"""What images are trained with where they have captions: their group's prompt and their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from raysynth.finetune.jobs import Job
from raysynth.groups.prompts import captioned
from raysynth.groups.settings import PromptConfig


def with_captions(job: Job, prompts: PromptConfig, captions: Mapping[str, str]) -> Job:
    """The job with every image's own prompt; as it is, where none of its images has a caption.

    An image without one keeps its group's prompt. DreamBooth's prior images have none: they are
    what the base draws by the group's prompt. `captions`: of images by id.
    """
    own = [captions.get(name, "") for name in job.ids]
    if not any(own):
        return job
    each = zip(job.groups, own, strict=True)
    said = tuple(captioned(prompts, job.prompts[g], caption) for g, caption in each)
    return replace(job, captions=said, cuts=True)

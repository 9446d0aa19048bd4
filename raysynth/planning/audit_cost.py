"""What an audit of generated images costs."""

from __future__ import annotations

from raysynth.audit.settings import AUDITS
from raysynth.config.config import Config
from raysynth.groups.groups import Groups
from raysynth.planning.costs import FLOAT_BYTES, Sized, forward_flops
from raysynth.stages.stage import Cost


def of_audit(config: Config, sized: Sized) -> Cost:
    """What is trained for the audit of one generator's images, and what looks at them."""
    chosen, images = config.audit.method, sized.images
    tuned, training = sized.tuned[config.generator], sized.recipes[config.generator].training
    batch = training.budget.batch_size if training is not None else 0
    passes = AUDITS[chosen.name].passes(chosen.knobs(AUDITS), images.groups, batch)
    each = config.audit.images_per_group or images.candidates
    looked_at = min(images.candidates, each * images.groups)
    forward = forward_flops(config, sized.shape, images)
    trained = passes.trained * tuned.cost.training + passes.looked * tuned.cost.forward
    kept = FLOAT_BYTES * passes.models * tuned.cost.trained
    return Cost(
        {"audit": trained + looked_at * passes.each * forward},
        {"models without a group, until images are compared": kept} if kept else {},
    )


def auditing(config: Config, groups: Groups) -> list[str]:
    """The same in words; nothing without an audit."""
    if config.audit.is_off:
        return []
    chosen, each = config.audit.method, config.audit.images_per_group
    said = AUDITS[chosen.name].in_words(chosen.knobs(AUDITS), groups.count)
    looked_at = "all images" if each is None else f"{each} images of each group"
    return [f"audit.method={chosen.name} of {looked_at} {said} (GPU-hours: audit)"]

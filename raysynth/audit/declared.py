"""The stage of the audit: of one generator's images, once they are there."""

from __future__ import annotations

from raysynth.knobs import decides
from raysynth.models.settings import clip_of
from raysynth.stages.stage import Stage

AUDIT = Stage(
    "audit",
    "audit",
    "raysynth.audit.stage:build",
    ("synthesis",),
    # What else a training reads decided the models whose images these are.
    lambda config: {
        "knobs": decides(config.audit),
        "clip": clip_of(config.base),
        "seed": config.seed,
    },
    check="raysynth.audit.checks:check",
    check_groups="raysynth.audit.checks:check_groups",
    per_generator=True,
    cost="raysynth.planning.audit_cost:of_audit",
    where=lambda config: not config.audit.is_off,
)

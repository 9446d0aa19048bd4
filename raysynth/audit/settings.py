"""The knobs of `audit`."""

from __future__ import annotations

from typing import Any

from raysynth.knobs import Count, Section, knob
from raysynth.registry import Registry, chosen_part

AUDITS: Registry[Any] = Registry("raysynth.audit.methods", "audit")
"""Of `method.Audit`."""
NONE = "none"


class AuditConfig(Section):
    """Which group's training images a generated image owes what; off by default."""

    method: chosen_part(AUDITS, NONE) = knob(  # type: ignore[valid-type]
        NONE, "How it is found out; none: it is not.", neutral=NONE
    )
    images_per_group: Count | None = knob(
        50,
        "Generated images of each group that are looked at, evenly spaced; null: all, as "
        "selection.leak wants.",
    )

    @property
    def is_off(self) -> bool:
        """Whether a run has none."""
        return bool(self.method.name == NONE)

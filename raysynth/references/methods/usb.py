"""USB, uniform synthetic balancing: every group filled with synthetic images, trained on in one go.

Fills every group up to the size of the largest; cross-entropy on the mixture. Small groups are then
mostly synthetic and large ones all real: a new shortcut, which FFR is about.
"""

from __future__ import annotations

from raysynth.references.reference import Reference, on_real

PART = Reference(
    "USB mixing",
    "uniform synthetic balancing: Qraitem et al. 2024 (arXiv 2308.04553), section 4 and their code",
    lambda config, setting: (on_real(config, setting, images="usb"),),
    kind="mixture",
)

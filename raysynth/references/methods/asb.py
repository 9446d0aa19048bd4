"""ASB, additive synthetic balancing: as many synthetic images for every group, in one go.

Adds as many synthetic images as USB in all, the same number to every group; cross-entropy on the
mixture, whose real part stays biased.
"""

from __future__ import annotations

from raysynth.references.reference import Reference, on_real

PART = Reference(
    "ASB mixing",
    "additive synthetic balancing: Qraitem et al. 2024 (arXiv 2308.04553), section 4 and "
    "their code",
    lambda config, setting: (on_real(config, setting, images="asb"),),
    kind="mixture",
)

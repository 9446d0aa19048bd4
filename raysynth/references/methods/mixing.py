"""USB and ASB: synthetic images mixed into the real ones, trained on in one go."""

from __future__ import annotations

from raysynth.references.reference import Reference, on_real

_SOURCE = "Qraitem et al. 2024 (arXiv 2308.04553), section 4 and their code"

USB = Reference(
    "usb",
    f"uniform synthetic balancing: {_SOURCE}",
    lambda config, setting: (on_real(config, setting, images="usb"),),
    kind="mixture",
)
"""Fills every group with synthetic images up to the size of the largest; cross-entropy on the
mixture. Small groups are then mostly synthetic and large ones all real: a new shortcut, which FFR
is about."""

ASB = Reference(
    "asb",
    f"additive synthetic balancing: {_SOURCE}",
    lambda config, setting: (on_real(config, setting, images="asb"),),
    kind="mixture",
)
"""Adds as many synthetic images as USB in all, the same number to every group; cross-entropy on
the mixture, whose real part stays biased."""

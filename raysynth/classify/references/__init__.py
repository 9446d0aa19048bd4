"""Real-only references, one file each; the registry by name.

All are tuned alike: every weight decay of `classifier.reference_weight_decays`, every evaluation
as a stopping point, chosen by validation WGA alone.
"""

from __future__ import annotations

from raysynth.classify.references.balanced import BALANCED
from raysynth.classify.references.erm import ERM
from raysynth.classify.references.erm_balanced_head import ERM_BALANCED_HEAD
from raysynth.classify.references.group_dro import GROUP_DRO
from raysynth.classify.references.reference import Reference

REFERENCES: dict[str, Reference] = {
    reference.name: reference for reference in (ERM, BALANCED, GROUP_DRO, ERM_BALANCED_HEAD)
}

__all__ = ["REFERENCES", "Reference"]

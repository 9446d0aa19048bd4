"""Reweighting: every image drawn alike, its loss weighted by the inverse size of its group.

Minimises sum_i w_i CE_i with w_i proportional to 1 / n_g: the same expectation as resampling,
but a batch holds few images of a small group, with large weights. Tuned: weight decay, stopping
point.
"""

from __future__ import annotations

from raysynth.references.reference import Reference, on_real

PART = Reference(
    "Group reweighting",
    "Shimodaira 2000; Sagawa et al. 2020 (arXiv 1911.08731), section 3.2, importance weighting",
    lambda config, setting: (on_real(config, setting, reweighted=True),),
)

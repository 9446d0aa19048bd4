"""DFR on validation images: ERM features, the last layer fitted to held-out balanced images.

The encoder is ERM's. Half of the validation images fit the last layer (L1 logistic regression on
as many images of every group as the smallest has) and the other half chooses the inverse penalty C
and, here, the weight decay and the stopping point; then the coefficients of 20 such regressions on
random balanced subsets of all validation images are averaged. Features are standardised by the
training images. The halves are drawn within each group, where the authors' code draws them from all
images. Its validation score is that of the tuning half.
"""

from __future__ import annotations

from raysynth.heads.spec import HeadSpec
from raysynth.references.reference import Reference, plain

PART = Reference(
    "DFR (validation images)",
    "Kirichenko et al. 2023 (arXiv 2204.02937), DFR Validation-Train; their code",
    plain,
    lambda config: (HeadSpec("dfr_validation", penalty=config.dfr_penalty),),
    uses_validation=True,
)

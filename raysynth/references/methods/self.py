"""SELF: the last layer fine-tuned on held-out images where two networks disagree.

The encoder is ERM's. On half of the validation images its predictions p are compared with those
q of the same training stopped early; the n images of the largest KL(q || p), as the authors' code
takes it, are where further training has taken the network's first answer away. The last layer goes
on from ERM's by SGD on them (250 steps, batches of 32 with the classes equally often); neither the
network nor the fine-tuning needs a group label. n of 20, 100, 500 (at most the half), the early
stop at 10, 20 or 50 % and the learning rate are tuned by WGA on the other half. The halves' drawing
within groups is ours. Early stops are taken among the training's evaluations, so its first snapshot
has none and is ERM as it stands.
"""

from __future__ import annotations

from raysynth.heads.spec import HeadSpec
from raysynth.references.reference import Reference, plain

PART = Reference(
    "SELF",
    "LaBonte et al. 2023 (arXiv 2309.08534), early-stop disagreement SELF; their code",
    plain,
    lambda config: (HeadSpec("self"),),
    uses_validation=True,
)

"""JTT, just train twice: what a briefly trained network misreads is shown more often.

An identification model is trained by ERM for T steps; the training images that it misclassifies
are the error set E. A new network is then trained from its start on all images, those of E copied
lambda times. No group label of a training image is used; validation's choose the stopping point.
`references.jtt_steps` is T and `references.jtt_upweight` lambda. The authors tune both: T of 1 to
60 epochs, lambda of 20, 50 and 100 on images (Waterbirds: 60 epochs and 100; CelebA: 1 and 50).
"""

from __future__ import annotations

from raysynth.references.reference import Reference, Setting, on_real
from raysynth.references.settings import ReferencesConfig
from raysynth.training.plan import Phase


def _phases(config: ReferencesConfig, setting: Setting) -> tuple[Phase, ...]:
    identify = on_real(config, setting, steps=config.jtt_steps)
    again = on_real(config, setting, images="real_errors", upweight=config.jtt_upweight, fresh=True)
    return identify, again


PART = Reference("JTT", "Liu et al. 2021 (arXiv 2107.09044), algorithm 1", _phases)

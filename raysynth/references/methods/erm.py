"""ERM: cross-entropy on the real images as they come.

Minimises the mean cross-entropy over uniformly drawn images. Where 99 % of a class share an
attribute, the attribute answers 99 % of the training images, and the rest is learnt by heart.
"""

from __future__ import annotations

from raysynth.references.reference import Reference, plain

PART = Reference("ERM", "Vapnik 1999; the plain training of every paper's table", plain)

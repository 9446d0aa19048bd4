"""One model for all groups: the many show it the shapes, the words tell it the attribute.

Where a group is too small to be trained on, there is one for each attribute (`lending.settled`).
"""

from __future__ import annotations

from raysynth.generators.generator import OURS, Generator, Models

PART = Generator("One model for all groups", OURS, Models("full", "auto"))

"""The knobs of `grouping`."""

from __future__ import annotations

from typing import Any

from raysynth.knobs import Section, knob
from raysynth.registry import Registry, chosen_part

GROUPING: Registry[Any] = Registry("raysynth.grouping.methods", "grouping method")
"""Of `method.Method`."""
GIVEN = "given"
FINDING = "conflict_mining"
"""What `dataset.attributes: unknown` asks for unless another method is named."""
RESOLVING = "dmis"
"""What is named to those whose attributes are known of some images."""


class GroupingConfig(Section):
    """Which group an image is in: label x attribute, the data set's or one that is found."""

    method: chosen_part(GROUPING) = knob(  # type: ignore[valid-type]
        GIVEN,
        "given: the data set's attributes; dmis: these, and those that are missing; others find "
        "attributes of training and validation images. Test stays measured in the data set's own "
        "groups where they are known.",
        neutral=GIVEN,
    )

    @property
    def is_given(self) -> bool:
        """Whether the data set's own groups are the run's."""
        return bool(self.method.name == GIVEN)

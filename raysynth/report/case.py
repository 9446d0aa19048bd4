"""What the rules of the verdict look at: a run's methods, their differences, its splits."""

from __future__ import annotations

from dataclasses import dataclass

from raysynth.evaluation.paired import Difference
from raysynth.groups.groups import FEW
from raysynth.report.content import Content, Method
from raysynth.report.tested import Tested

HELPED, NOT, UNKNOWN = "helped", "did not help", "cannot be told"


@dataclass(frozen=True)
class Case:
    """What the rules look at."""

    content: Content
    tested: Tested | None

    @property
    def difference(self) -> Difference | None:
        """raysynth minus the best real-only reference, WGA."""
        return self.against(self.content.best_reference)

    def against(self, method: Method | None) -> Difference | None:
        """raysynth minus a method, WGA; None: it kept no predictions."""
        if method is None or self.tested is None:
            return None
        return self.tested.differences.get(method.name, {}).get("wga")

    @property
    def word(self) -> str:
        """HELPED, NOT or UNKNOWN."""
        if self.content.ours is None:
            return UNKNOWN
        if self.on_real_alone:
            return NOT
        found = self.difference
        if found is None or found.low <= 0 <= found.high:
            return UNKNOWN
        return HELPED if found.low > 0 else NOT

    @property
    def on_real_alone(self) -> bool:
        """Whether the search chose a training without synthetic images."""
        parameters = self.content.best.get("parameters", {})
        return parameters.get("ratio") == 0 and parameters.get("head_real_share", 1) == 1

    @property
    def control(self) -> Method | None:
        """The best control on test."""
        found = [method for method in self.content.methods if method.kind == "control"]
        return max(found, key=lambda method: method.wga.mean, default=None)

    def small(self, split: str) -> list[str]:
        """Groups with few images in a split, in words."""
        return small(self.content, split)

    @property
    def gap(self) -> float:
        """raysynth's validation WGA minus its WGA on test."""
        ours = self.content.ours
        return ours.validation - ours.wga.mean if ours else 0.0


def small(content: Content, split: str) -> list[str]:
    """Groups with fewer than FEW images in a split, each with how many."""
    groups = content.measured.groups if split == "test" else content.groups
    counts = content.counts[split].tolist()
    return [f"{groups.names[g]} {n}" for g, n in enumerate(counts) if n < FEW]

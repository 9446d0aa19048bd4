"""What a run asks of the cluster at once, as a value: whoever compares knows no room's knobs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Asked:
    """So many workers at once, of so many CPUs and GPUs each.

    `knobs`: what the configuration calls these three numbers, for messages.
    """

    count: int
    cpus: float
    gpus: float
    knobs: tuple[str, str, str]

    def of(self, kind: str) -> tuple[float, str]:
        """All together of `CPU` or `GPU`, and the knob of what each takes."""
        each = self.cpus if kind == "CPU" else self.gpus
        return self.count * each, self.knobs[1 if kind == "CPU" else 2]

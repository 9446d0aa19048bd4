"""What one training does: its phases, and the heads that are tried on its snapshots.

References, mixtures, search trials and the final classifier are plans, nothing else.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from raysynth.heads.spec import HeadSpec

Images = Literal[
    "real", "real_subset", "real_errors", "synthetic", "synthetic_fill", "usb", "asb", "joint"
]
"""What a phase trains on; `raysynth.training.trainset` defines each."""


LATER = {"joint_means": False, "mix": 0.0}
"""Fields of a phase that earlier versions did not write, and the value that is as without."""


@dataclass(frozen=True)
class Phase:
    """Optimizer steps on one kind of images.

    `ratio`: synthetic images used / real training images. `sampling`: shuffled epochs, or groups
    equally often. `reweighted`: losses weighted by inverse group frequency. `dro_step_size`:
    group-DRO when above 0. `real_share`: weight of the real images' loss in `joint`. `joint_means`:
    half of every batch of `joint` is real. `mix`: share of batches mixed by CutMix or MixUp.
    `upweight`: copies of the misread images in `real_errors`. `fresh`: start from new weights.
    `keep_best`: evaluations after which the next phase goes on from the best; 0: from the last
    weights.
    """

    images: Images
    steps: int
    learning_rate: float
    weight_decay: float
    ratio: float = 0.0
    sampling: Literal["uniform", "balanced"] = "uniform"
    reweighted: bool = False
    beta: float = 1.0
    temperature: float = 0.1
    dro_step_size: float = 0.0
    real_share: float = 0.0
    upweight: int = 1
    fresh: bool = False
    keep_best: int = 0
    joint_means: bool = False
    mix: float = 0.0

    def told(self) -> dict[str, Any]:
        """The fields that say something: those always set, and others than their default."""
        always = ("images", "steps", "learning_rate", "weight_decay")
        return {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if f.name in always or getattr(self, f.name) != f.default
        }


@dataclass(frozen=True)
class Plan:
    """One training and the heads tried on it; everything but the images and `Config`.

    Only the last phase has snapshots: `evaluations`, evenly spaced. `seed`: index of the seed.
    """

    phases: tuple[Phase, ...]
    heads: tuple[HeadSpec, ...]
    evaluations: int = 4
    seed: int = 0

    @property
    def last(self) -> Phase:
        """The phase whose snapshots are evaluated."""
        return self.phases[-1]

    @property
    def frozen(self) -> bool:
        """No phase takes a step: the encoder stays as it was loaded."""
        return not any(phase.steps for phase in self.phases)

    @property
    def mixes(self) -> bool:
        """Some head is fitted to synthetic images too."""
        return any(spec.real_share < 1 for spec in self.heads)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; a phase's fields of LATER only where they say something."""
        found = asdict(self)
        for phase in found["phases"]:
            for name, neutral in LATER.items():
                if phase[name] == neutral:
                    del phase[name]
        return found


def told(plan: dict[str, Any]) -> dict[str, Any]:
    """A plan's settings flat, for results and reports; earlier phases as `stage_1_<field>`."""
    phases = [Phase(**values).told() for values in plan["phases"]]
    first = {f"stage_{n}_{k}": v for n, p in enumerate(phases[:-1], 1) for k, v in p.items()}
    return first | phases[-1]


def evaluation_steps(steps: int, evaluations: int) -> list[int]:
    """Evenly spaced step numbers of the evaluations; the last is `steps`."""
    return sorted({max(1, round(steps * (i + 1) / evaluations)) for i in range(evaluations)})

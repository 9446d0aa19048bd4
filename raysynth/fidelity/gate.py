"""The gate: groups whose kept images do not show their label, and what a run does about them.

Whether an image shows its label is what a probe of real images reads off it (`fidelity.probe`). The
rule and its numbers are ours. A group is unfaithful where

- the probe can be trusted: over the groups of the label it recognises at least `TRUSTED` of the
  real images that it has not seen, and the group's own clearly better than by chance;
- the kept images show their label significantly (one-sided binomial test, `LEVEL`) less often than
  half way (`MARGIN`) between chance and the group's real images, of which the lower bound counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scipy.special import bdtr, betaincinv

from raysynth.errors import UnfaithfulError
from raysynth.fidelity.settings import REAL_ONLY
from raysynth.groups.groups import Groups
from raysynth.stages.stage import Work

TRUSTED = 0.7
MARGIN = 0.5
LEVEL = 0.01
CONFIDENCE = 0.95
SHEET = "unfaithful.png"


@dataclass(frozen=True)
class Count:
    """Images of a group, and those of them whose label the probe recognises."""

    right: int
    of: int

    @property
    def share(self) -> float:
        """Of the images; 0 without any."""
        return self.right / self.of if self.of else 0.0

    @property
    def low(self) -> float:
        """The share's one-sided lower bound (Clopper & Pearson 1934)."""
        if not self.right:
            return 0.0
        return float(betaincinv(self.right, self.of - self.right + 1, 1 - CONFIDENCE))


@dataclass(frozen=True)
class Verdict:
    """What the gate finds of a group; `needed`: the share below which images are unfaithful."""

    unfaithful: bool
    needed: float | None
    reason: str
    """Why nothing can be said, where `needed` is None."""


def judged(real: Sequence[Count], kept: Sequence[Count], groups: Groups) -> list[Verdict]:
    """[G] verdicts; `real`, `kept`: [G] of the label alone."""
    chance, found = 1 / len(groups.label_names), []
    for g in range(groups.count):
        own = [real[other].share for other in groups.of_label(groups.label(g)) if real[other].of]
        over = sum(own) / len(own) if own else 0.0
        needed = chance + MARGIN * (real[g].low - chance)
        if not kept[g].of:
            found.append(Verdict(False, None, "no image was kept"))
        elif over < TRUSTED or real[g].low <= chance:
            few = f"the probe recognises {real[g].right} of its {real[g].of} real images"
            found.append(Verdict(False, None, f"{few}, and {over:.2f} of the label's"))
        else:
            beyond = float(bdtr(kept[g].right, kept[g].of, needed))
            found.append(Verdict(beyond < LEVEL, needed, ""))
    return found


def told(name: str, group: Mapping[str, Any]) -> str:
    """A group's numbers in words; `group`: of the stage's facts."""
    real, kept = (group["agreement"][side] for side in ("real", "kept"))
    return (
        f"{name}: {100 * kept['label']:.0f} % of {kept['images']} kept images show their label, "
        f"{100 * real['label']:.0f} % of {real['images']} real ones do"
    )


def check(config: Any, facts: Mapping[str, Any]) -> None:
    """Stop a run of unfaithful groups, unless the configuration says how it goes on.

    Parameters
    ----------
    facts : of the stage `fidelity`.

    Raises
    ------
    UnfaithfulError
        Naming the groups, their numbers, their pictures and the choices.
    """
    groups = facts["unfaithful"]
    if not groups or config.selection.on_unfaithful != "stop":
        return
    folder = f"{config.root}/fidelity"
    numbers = "; ".join(told(name, facts["groups"][name]) for name in groups)
    raise UnfaithfulError(
        f"selection.on_unfaithful=stop: {len(groups)} group(s) have synthetic images that do not "
        f"show their label: {numbers} (a linear probe of real images, {facts['encoder']}). "
        f"Pictures: {folder}/{SHEET}, real above kept. Fix: look at them; then another generator, "
        "or generator=auto; a base.name that knows the words of the labels, or one made of these "
        "images (raysynth pretrain); more images of the group, or finetune.min_images below their "
        "number; or selection.on_unfaithful=real_only (no synthetic image is used) or =go_on (as "
        "if nothing was found), which go on from here"
    )


def heeded(work: Work) -> Any:
    """A stage's configuration as the gate leaves it: at synthetic ratio 0 where it says so."""
    config: Any = work.config
    if not uses_none(config, work.inputs["fidelity"].facts if "fidelity" in work.inputs else {}):
        return config
    search = config.search.model_copy(update={"ratios": (0.0,)})
    classifier = config.classifier.model_copy(update={"ratio": 0.0, "mixtures": ()})
    return config.model_copy(update={"search": search, "classifier": classifier})


def uses_none(config: Any, facts: Mapping[str, Any]) -> bool:
    """Whether no classifier of the run uses a synthetic image; `facts`: of the stage `fidelity`."""
    return config.selection.on_unfaithful == REAL_ONLY and bool(facts.get("unfaithful"))

"""Terms of fine-tuning's loss in the denoiser's: what else they show a batch's images under.

In fine-tuning a term's other prompts are laid out ahead, of a model's groups; here they are drawn
with a batch, of all that its captions may say. A term that compares with what a base said before
its first step has nothing to compare with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from raysynth.errors import ConfigError
from raysynth.finetune.alone import ACROSS, ONE, TWO
from raysynth.finetune.term import Added, check_mixture
from raysynth.groups.groups import Groups
from raysynth.pretraining.captions import ALONE, NONE_SAID, Captions, Drawn, Meaning
from raysynth.pretraining.settings import WORDS, PretrainingConfig

KEY = "pretraining.denoiser.terms"
Others = dict[str, list[Meaning]]
"""Name -> what each image of a batch is shown under besides."""
Ask = Callable[[Added, Captions, Groups, Drawn, list[float]], Others]


def check_terms(settings: PretrainingConfig) -> None:
    """Refuse terms of images without words, those that need a base, and mixtures; ConfigError."""
    names = [one.name for one in settings.denoiser.terms]
    check_mixture(KEY, names)
    for name in names:
        if settings.captions != WORDS:
            raise ConfigError(
                f"{KEY}: {name} compares what is said of labels and attributes; got "
                f"pretraining.captions={settings.captions}. Fix: pretraining.captions={WORDS}, or "
                f"{KEY}=[]"
            )
        if name not in ASKING:
            raise ConfigError(
                f"{KEY}: {name} needs what a base says before its first step, and of one that is "
                f"only made there is nothing; expected {', '.join(ASKING)}. Fix: leave it out, and "
                f"fine-tune with finetune.terms=[{name}]"
            )


def check_captions(settings: PretrainingConfig, captions: Captions) -> None:
    """Refuse terms whose texts the data set's words do not make; ConfigError."""
    named = any(one.name == "coind" for one in settings.denoiser.terms)
    if named and not any(min(each) >= 0 for each in captions.concepts):
        raise ConfigError(
            f"{KEY}: coind adds up what is said of label and attribute, but no text says an "
            "attribute; expected known attributes, and {attribute} in prompts.template. Fix: "
            f"these, or {KEY}=[]"
        )


def alone_of(terms: Sequence[Added]) -> float:
    """How often a caption says the label alone: as a term has it, which needs such texts."""
    return max([ALONE, *(float(getattr(added.knobs, "alone", 0)) for added in terms)])


def ask(
    terms: Sequence[Added],
    captions: Captions,
    groups: Groups,
    drawn: Drawn,
    dice: torch.Generator,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Texts by number that terms show a batch under besides, [B] each, and where they are others.

    `drawn`: what the batch is told as.
    """
    also, differs = {}, {}
    for added in terms:
        uniform = torch.rand(len(drawn.meanings), generator=dice).tolist()
        asked = ASKING[added.name](added, captions, groups, drawn, uniform)
        for name, meanings in asked.items():
            also[name] = captions.texts_of(meanings, drawn.places)
            differs[name] = torch.tensor(
                [one != other for one, other in zip(meanings, drawn.meanings, strict=True)]
            )
    return also, differs


def _partners(
    added: Added, captions: Captions, groups: Groups, drawn: Drawn, uniform: list[float]
) -> Others:
    """Of images that are told all there is to say, what another group is told as."""
    concepts = captions.concepts
    whole = [each for each in concepts if min(each) >= 0] or concepts
    spoken = [groups.index(label, max(attribute, 0)) for label, attribute in whole]
    found: list[Meaning] = []
    for meaning, place in zip(drawn.meanings, uniform, strict=True):
        among: list[int] = []
        if meaning in whole:
            own = spoken[whole.index(meaning)]
            among = added.term.partners(own, spoken, groups, added.knobs)
        other = among[int(place * len(among))] if among else None
        found.append(meaning if other is None else whole[spoken.index(other)])
    return {added.name: found}


def _cells(
    added: Added, captions: Captions, groups: Groups, drawn: Drawn, uniform: list[float]
) -> Others:
    """The other three prompts of each image's cell, see `raysynth.finetune.alone`."""
    found: Others = {f"{added.name}/{key}": [] for key in (ACROSS, ONE, TWO)}
    for meaning, place, image in zip(drawn.meanings, uniform, drawn.images, strict=True):
        three = _three(added.knobs, captions, groups, meaning, place, image)
        for key, other in zip(found, three, strict=True):
            found[key].append(other)
    return found


def _three(
    knobs: Any, captions: Captions, groups: Groups, meaning: Meaning, place: float, image: Meaning
) -> tuple[Meaning, Meaning, Meaning]:
    """What says all that a text does not, and the two that share a word with it, or nothing."""
    label, attribute = meaning
    if min(meaning) >= 0:
        return NONE_SAID, (label, -1), (-1, attribute)
    if meaning == NONE_SAID:
        return (meaning,) * 3
    any_ = knobs.cells == "any"
    if attribute < 0:
        there = len(groups.attribute_names)
        cell = (label, int(place * there) if any_ else image[1])
        across = (-1, cell[1])
    else:
        cell = (int(place * len(groups.label_names)) if any_ else image[0], attribute)
        across = (cell[0], -1)
    known = min(cell) >= 0 and cell in captions.said
    return (across, cell, NONE_SAID) if known else (meaning,) * 3


ASKING: dict[str, Ask] = {"cbdm": _partners, "coind": _cells}

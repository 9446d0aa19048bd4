"""Which of a run's trained methods is shipped: the rule, its margin, and the words for both.

Candidates are all methods of which a network was trained: raysynth's own, references and mixtures.
Controls are not: nothing but a head is fitted for them, and they say what the base model knows by
itself; they are measured, never shipped. A candidate's score is its validation WGA averaged over
its training seeds. Equal ones are told apart by the validation AGA, then raysynth's own is taken,
then the one that is named first. Of the method of the best score the seed of the best validation
score is shipped. Methods that train on a part of validation (`uses_validation`) are judged by the
rest of it, which they have not seen, so they may ship; the words say so. Test images decide
nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raysynth.evaluation.kinds import KINDS, OURS
from raysynth.groups.metrics import SCORE_OF_AGA

DIGITS = 9
"""Scores that agree so far are equal: means of other orders of summing differ in the last bits."""
TIES = {
    "aga": "the one of the higher average over groups",
    "own": "raysynth's own",
    "order": "the one that is named first",
}
"""What tells equal ones apart, as a sentence's subject."""
Methods = Mapping[str, Mapping[str, Any]]
"""Rows as in results.json, by name."""
Title = Callable[[str], str]
"""What sentences call a method."""


@dataclass(frozen=True)
class Candidate:
    """A trained method's validation scores: WGA and AGA of each seed, shares of 1."""

    name: str
    row: Mapping[str, Any]
    wga: tuple[float, ...]
    aga: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean WGA over seeds."""
        return float(np.mean(self.wga))

    @property
    def rank(self) -> tuple[float, float, bool]:
        """What candidates are compared by; the larger one ships."""
        return round(self.mean, DIGITS), round(float(np.mean(self.aga)), DIGITS), self.name == OURS

    @property
    def best_seed(self) -> int:
        """Index of the seed of the best validation score."""
        return int(np.argmax(np.add(self.wga, SCORE_OF_AGA * np.array(self.aga))))

    @property
    def seeds_variance(self) -> float | None:
        """Squared standard error of the mean over seeds; None for one seed, of which none is known.

        s^2 / n with the sample variance (n - 1).
        """
        many = len(self.wga)
        return float(np.var(self.wga, ddof=1)) / many if many > 1 else None

    def images_variance(self, images: Mapping[str, int]) -> float | None:
        """Squared standard error from the worst group's few validation images: p (1 - p) / n.

        Binomial, of the group that is worst on average over seeds. All seeds see the same images,
        so their number lessens nothing. `images`: validation images per group; methods that train
        on half of them are judged by the other half.
        """
        found = self.row["validation"].get("groups", {})
        means = {name: spread["mean"] for name, spread in found.items() if name in images}
        if not means or any(mean is None for mean in means.values()):
            return None
        worst = min(means, key=lambda name: means[name])
        seen = images[worst] / (2 if self.row["uses_validation"] else 1)
        share = means[worst]
        return float(share * (1 - share) / seen) if seen else None


def candidates(methods: Methods) -> dict[str, Candidate]:
    """The trained methods by name; those without numbers of validation are none."""
    found = {}
    for name, row in methods.items():
        scores = [_seeds(row, key) for key in ("wga", "aga")]
        if KINDS[row["kind"]].is_trained and scores[0]:
            wga, aga = scores
            found[name] = Candidate(name, row, wga, aga or (0.0,) * len(wga))
    return found


def _seeds(row: Mapping[str, Any], key: str) -> tuple[float, ...]:
    """A validation measure of each seed; nothing where one is missing."""
    values = row.get("validation", {}).get(key, {}).get("seeds", ())
    whole = all(isinstance(value, int | float) and math.isfinite(value) for value in values)
    return tuple(map(float, values)) if whole else ()


def shipped(methods: Methods, images: Mapping[str, int] | None = None) -> dict[str, Any] | None:
    """The method and seed that the rule ships; None where no trained method has numbers.

    Parameters
    ----------
    images : validation images per group; None: not known, so the noise is that of the seeds.

    Returns
    -------
    `name`, `kind`, `uses_validation`, `seed` (index), `validation_wga` (mean over seeds),
    `own_validation_wga` (raysynth's; None without its row), `over` (the second best method; None:
    there is no other), `over_validation_wga`, `margin` between these two, `margin_noise` (its
    standard error; None: not known), `within_noise`, `by` (`wga`, or what told equal ones apart).
    """
    ranked = sorted(candidates(methods).values(), key=lambda one: one.rank, reverse=True)
    return _found(ranked[0], ranked[1:], methods, images or {}) if ranked else None


def shipped_before(
    methods: Methods, images: Mapping[str, int] | None = None
) -> dict[str, Any] | None:
    """As `shipped`, of a run by a version that always shipped raysynth's own; `by`: `always`.

    `over` is the best other method; the margin is negative where validation prefers that one.
    """
    known = candidates(methods)
    if OURS not in known:
        return None
    others = [one for name, one in known.items() if name != OURS]
    others.sort(key=lambda one: one.rank, reverse=True)
    return _found(known[OURS], others, methods, images or {}) | {"by": "always"}


def _found(
    best: Candidate, others: Sequence[Candidate], methods: Methods, images: Mapping[str, int]
) -> dict[str, Any]:
    own = candidates(methods).get(OURS)
    found = {
        "name": best.name,
        "kind": best.row["kind"],
        "uses_validation": bool(best.row["uses_validation"]),
        "seed": best.best_seed,
        "validation_wga": best.mean,
        "own_validation_wga": own.mean if own else None,
    }
    if not others:
        nothing = dict.fromkeys(("over", "over_validation_wga", "margin", "margin_noise"))
        return found | nothing | {"within_noise": False, "by": "wga"}
    second = others[0]
    margin, noise = best.mean - second.mean, _noise(best, second, images)
    pairs = zip(("wga", "aga", "own"), best.rank, second.rank, strict=False)
    return found | {
        "over": second.name,
        "over_validation_wga": second.mean,
        "margin": margin,
        "margin_noise": noise,
        "within_noise": noise is not None and abs(margin) < noise,
        "by": next((key for key, one, other in pairs if one != other), "order"),
    }


def _noise(one: Candidate, other: Candidate, images: Mapping[str, int]) -> float | None:
    """Standard error of the difference of two means (Welch 1947), seeds and images added up.

    The images' share is an upper bound: both were judged by the same ones, and err on many alike.
    """
    parts = [candidate.seeds_variance for candidate in (one, other)]
    parts += [candidate.images_variance(images) for candidate in (one, other)]
    known = [part for part in parts if part is not None]
    return math.sqrt(sum(known)) if known else None


def in_words(found: Mapping[str, Any], title: Title, methods: Methods) -> str:
    """What ships and why, in a few sentences.

    Parameters
    ----------
    found : as `shipped` gives it; title : what a method is called; methods : the rows.
    """
    sentences = [f"Shipped: {_called(found['name'], title, methods)}, seed {found['seed']}"]
    sentences[0] += f"; {_because(found, title, methods)}."
    if found["uses_validation"]:
        sentences.append("It trains on a part of the validation images, judged by the rest.")
    own = found["own_validation_wga"]
    if own is not None and found["kind"] == "reference":
        sentences.append(
            "Synthesis does not pay here: real images alone give a mean validation WGA of "
            f"{_percent(found['validation_wga'])}, raysynth's own classifier {_percent(own)}."
        )
    elif own is not None and OURS not in (found["name"], found["over"]):
        sentences.append(f"raysynth's own classifier has {_percent(own)}.")
    elif found["name"] == OURS and _on_real_alone(methods[OURS]):
        sentences.append(
            "The search chose to train it on real images alone: synthesis does not pay here."
        )
    return " ".join(sentences)


def _on_real_alone(row: Mapping[str, Any]) -> bool:
    """Whether a row says that no phase of its training had synthetic images."""
    images = [str(value) for key, value in row.get("chosen", {}).items() if key.endswith("images")]
    return bool(images) and all(value.startswith("real") for value in images)


def _because(found: Mapping[str, Any], title: Title, methods: Methods) -> str:
    score = f"mean validation WGA {_percent(found['validation_wga'])}"
    if found["over"] is None:
        return f"{score}, no other method was trained"
    over = _called(found["over"], title, methods)
    against = f"{score} against {_percent(found['over_validation_wga'])} of {over}"
    if found["by"] == "always":
        prefers = f", which validation prefers (`raysynth export {found['over']}`)"
        other = prefers * (found["margin"] < 0)
        return f"{against}{other}; the version that made this run always shipped raysynth's own"
    if found["by"] != "wga":
        return f"{score}, as {over}: {TIES[found['by']]} was taken"
    noise = found["margin_noise"]
    spread = "" if noise is None else f", standard error {100 * noise:.1f}"
    near = ", within the noise" if found["within_noise"] else ""
    return f"{against}, decided by {100 * found['margin']:.1f} points{spread}{near}"


def _called(name: str, title: Title, methods: Methods) -> str:
    told = KINDS[methods[name]["kind"]].told
    return f"{title(name)} ({told})" if told else title(name)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"

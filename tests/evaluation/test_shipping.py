"""The rule of what is shipped: scores, ties, missing numbers, the margin and its noise, words."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from raysynth.evaluation.shipping import candidates, in_words, shipped, shipped_before

IMAGES = {"a/1": 100, "a/2": 100}


def row(
    *wga: float | None,
    kind: str = "reference",
    aga: float | None = None,
    uses: bool = False,
    groups: tuple[float, float] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """A method's row: validation WGA of each seed, AGA the same unless given."""
    validation = {"wga": {"seeds": list(wga)}}
    validation["aga"] = {"seeds": [one if aga is None else aga for one in wga]}
    if groups:
        means = zip(IMAGES, groups, strict=True)
        validation["groups"] = {name: {"mean": mean} for name, mean in means}  # type: ignore[misc]
    return {"kind": kind, "uses_validation": uses, "validation": validation, **more}


def ours(*wga: float, **more: Any) -> dict[str, Any]:
    return row(*wga, kind="raysynth", **more)


def test_the_best_mean_over_seeds_ships_with_its_best_seed():
    found = shipped(
        {"erm": row(0.9, 0.56), "dro": row(0.72, 0.78, 0.75), "raysynth": ours(0.6, 0.8)}
    )
    assert (found["name"], found["kind"], found["seed"]) == ("dro", "reference", 1)
    assert found["validation_wga"] == pytest.approx(0.75)
    assert found["own_validation_wga"] == pytest.approx(0.7)
    assert (found["over"], found["by"]) == ("erm", "wga")
    assert found["margin"] == pytest.approx(0.02)


def test_the_aga_tells_equal_seeds_apart():
    method = row(0.7, 0.7, 0.7)
    method["validation"]["aga"]["seeds"] = [0.8, 0.9, 0.85]
    assert shipped({"raysynth": ours(0.1), "erm": method})["seed"] == 1


@pytest.mark.parametrize(
    ("methods", "name", "by"),
    [
        ({"erm": row(0.7, aga=0.9), "raysynth": ours(0.7, aga=0.8)}, "erm", "aga"),
        ({"erm": row(0.7, aga=0.8), "raysynth": ours(0.7, aga=0.8)}, "raysynth", "own"),
        ({"erm": row(0.7), "dro": row(0.7), "raysynth": ours(0.6)}, "erm", "order"),
        # The same mean, summed in another order: the last bits differ.
        ({"erm": row(0.1, 0.2, 0.3), "raysynth": ours(0.3, 0.2, 0.1)}, "raysynth", "own"),
    ],
)
def test_ties(methods, name, by):
    found = shipped(methods)
    assert (found["name"], found["by"]) == (name, by)
    assert "was taken" in in_words(found, str, methods)


def test_controls_and_methods_without_numbers_are_no_candidates():
    methods = {
        "clip": row(0.9, kind="control"),
        "lost": row(0.9, None),
        "broken": row(0.9, math.nan),
        "none": {"kind": "reference", "uses_validation": False, "validation": {}},
        "raysynth": ours(0.5),
    }
    assert list(candidates(methods)) == ["raysynth"]
    found = shipped(methods)
    assert (found["name"], found["over"], found["margin"]) == ("raysynth", None, None)
    assert in_words(found, str, methods) == (
        "Shipped: raysynth, seed 0; mean validation WGA 50.0 %, no other method was trained."
    )
    del methods["raysynth"]
    assert shipped(methods) is None and shipped_before(methods) is None
    without_aga = {"raysynth": ours(0.5, 0.6)}
    del without_aga["raysynth"]["validation"]["aga"]
    assert shipped(without_aga)["seed"] == 1


def test_the_noise_of_the_margin_is_that_of_seeds_and_of_validation_images():
    methods = {"erm": row(0.7, 0.8), "raysynth": ours(0.80, 0.84)}
    seeds = np.var([0.7, 0.8], ddof=1) / 2 + np.var([0.80, 0.84], ddof=1) / 2
    found = shipped(methods)
    assert found["margin_noise"] == pytest.approx(np.sqrt(seeds)) and not found["within_noise"]
    methods["erm"] |= row(0.7, 0.8, groups=(0.75, 0.9))
    methods["raysynth"] |= ours(0.80, 0.84, groups=(0.95, 0.82))
    images = (0.75 * 0.25 + 0.82 * 0.18) / 100  # of the worst group of each
    found = shipped(methods, IMAGES)
    assert found["margin_noise"] == pytest.approx(np.sqrt(seeds + images))
    assert found["within_noise"]
    halved = methods | {"erm": methods["erm"] | {"uses_validation": True}}
    more = 0.75 * 0.25 / 100
    noise = shipped(halved, IMAGES)["margin_noise"]
    assert noise == pytest.approx(np.sqrt(seeds + images + more))
    assert shipped({"erm": row(0.7), "raysynth": ours(0.8)})["margin_noise"] is None


def test_the_words_say_by_how_much_and_whether_it_is_noise():
    clear = {"erm": row(0.60, 0.62), "raysynth": ours(0.80, 0.82)}
    assert in_words(shipped(clear), str.upper, clear) == (
        "Shipped: RAYSYNTH, seed 1; mean validation WGA 81.0 % against 61.0 % of ERM (real images "
        "only), decided by 20.0 points, standard error 1.4."
    )
    near = {"erm": row(0.70, 0.90), "raysynth": ours(0.75, 0.89)}
    found = shipped(near)
    assert found["within_noise"] and "standard error 12.2, within the noise." in in_words(
        found, str, near
    )


def test_synthesis_that_does_not_pay_is_said_with_both_numbers():
    methods = {"dfr": row(0.8, uses=True), "dro": row(0.75), "raysynth": ours(0.7)}
    said = in_words(shipped(methods), str, methods)
    assert said.startswith("Shipped: dfr (real images only), seed 0; ")
    assert "It trains on a part of the validation images, judged by the rest." in said
    assert said.endswith(
        "Synthesis does not pay here: real images alone give a mean validation WGA of 80.0 %, "
        "raysynth's own classifier 70.0 %."
    )
    mixed = {"usb": row(0.8, kind="mixture"), "dro": row(0.75), "raysynth": ours(0.7)}
    said = in_words(shipped(mixed), str, mixed)
    assert "does not pay" not in said and said.endswith("raysynth's own classifier has 70.0 %.")
    real = {"images": "real", "stage_1_images": "real", "steps": 5}
    alone = {"dro": row(0.6), "raysynth": ours(0.7, chosen=real)}
    assert "real images alone: synthesis does not pay" in in_words(shipped(alone), str, alone)
    alone["raysynth"]["chosen"] = real | {"stage_1_images": "synthetic"}
    assert "does not pay" not in in_words(shipped(alone), str, alone)


def test_a_run_of_an_earlier_version_shipped_its_own_whatever_validation_said():
    methods = {"dro": row(0.75), "raysynth": ours(0.6, 0.7)}
    found = shipped_before(methods)
    assert (found["name"], found["seed"], found["over"], found["by"]) == (
        *("raysynth", 1, "dro", "always"),
    )
    assert found["margin"] == pytest.approx(-0.1)
    said = in_words(found, str, methods)
    assert "which validation prefers (`raysynth export dro`); the version that made" in said
    methods["dro"] = row(0.5)
    assert "prefers" not in in_words(shipped_before(methods), str, methods)

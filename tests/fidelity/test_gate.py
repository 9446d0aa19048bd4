"""Who is unfaithful, and what a run does about it."""

from __future__ import annotations

import pytest

from raysynth.config.files import load_config
from raysynth.errors import StageError
from raysynth.fidelity.gate import Count, check, heeded, judged
from raysynth.progress import Progress
from raysynth.stages.stage import Done, Work
from tests.training.tiny import tiny_groups

GROUPS = tiny_groups()
GOOD = [Count(90, 100)] * 4


def test_the_lower_bound_is_clopper_and_pearsons():
    assert Count(20, 20).low == pytest.approx(0.05 ** (1 / 20))
    assert Count(0, 20).low == Count(0, 0).low == 0
    assert Count(1, 20).low == pytest.approx(1 - 0.95 ** (1 / 20))


@pytest.mark.parametrize(
    ("real", "kept", "unfaithful"),
    [
        ([90] * 4, [95, 90, 85, 83], []),  # the quickstart's range
        ([90] * 4, [95, 5, 90, 90], [1]),
        ([90] * 4, [100, 100, 0, 0], [2, 3]),  # smudges: all of one label
        ([90] * 4, [50, 50, 50, 50], [0, 1, 2, 3]),  # smudges: by chance
        ([90] * 4, [62, 90, 90, 90], []),  # below half way, within chance
        ([90, 60, 90, 90], [90, 5, 90, 90], [1]),  # weak in the group, but known of the label
        ([60] * 4, [0, 0, 0, 0], []),  # a weak probe says nothing
        ([90, 50, 90, 90], [90, 0, 90, 90], []),  # one that guesses in the group
    ],
)
def test_groups_that_do_not_show_their_label(real, kept, unfaithful):
    sides = ([Count(right, 100) for right in side] for side in (real, kept))
    found = judged(*sides, GROUPS)
    assert [g for g, verdict in enumerate(found) if verdict.unfaithful] == unfaithful
    assert all((verdict.needed is None) == bool(verdict.reason) for verdict in found)


def test_few_images_are_no_proof():
    assert not judged(GOOD, [Count(1, 3)] * 4, GROUPS)[0].unfaithful
    assert judged(GOOD, [Count(1, 12)] * 4, GROUPS)[0].unfaithful
    (nothing, *_) = judged(GOOD, [Count(0, 0)] * 4, GROUPS)
    assert not nothing.unfaithful and nothing.reason == "no image was kept"


def facts(*unfaithful: str) -> dict:
    sides = {side: {"label": share, "images": 9} for side, share in (("real", 0.9), ("kept", 0.1))}
    groups = {name: {"agreement": sides} for name in GROUPS.names}
    return {"unfaithful": list(unfaithful), "groups": groups, "encoder": "the small network"}


def test_a_run_stops_with_what_was_found_and_the_choices():
    config = load_config(None, ["storage_path=/runs", "name=one"])
    check(config, facts())
    with pytest.raises(StageError) as error:
        check(config, facts("a/2", "b/1"))
    said = str(error.value)
    for part in (
        "2 group(s)",
        "a/2: 10 % of 9 kept images show their label, 90 % of 9 real ones do; b/1:",
        "/runs/one/fidelity/unfaithful.png",
        "generator=auto",
        "base.name",
        "selection.on_unfaithful=real_only",
        "=go_on",
    ):
        assert part in said
    assert error.value.exit_code == 2  # the same command would end here again
    for choice in ("go_on", "real_only"):
        check(load_config(None, [f"selection.on_unfaithful={choice}"]), facts("a/2"))


def work(choice: str, *unfaithful: str) -> Work:
    config = load_config(
        None,
        [
            f"selection.on_unfaithful={choice}",
            "classifier.mixtures=[usb]",
            "search.ratios=[0, 0.5]",
        ],
    )
    done = Done("fidelity", "", "", 0.0, facts(*unfaithful), False)
    return Work(config, "", {"fidelity": done}, Progress(), None)


def test_real_only_leaves_no_synthetic_image():
    own = heeded(work("real_only", "a/2"))
    assert own.search.ratios == (0.0,) and own.classifier.ratio == 0
    assert own.classifier.mixtures == ()
    for choice, unfaithful in (("real_only", ()), ("go_on", ("a/2",))):
        given = work(choice, *unfaithful)
        assert heeded(given) is given.config

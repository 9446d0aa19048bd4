"""Each system of the literature beside the method, against its own absence: does it do its job?

    python benchmarks/neighbours.py [--quick] [--only NAME ...] [--seeds 0 1 2] [--folder FOLDER]

A check prints its numbers, seed by seed and their means, and its bars, which are of the means;
exits 1 when one is missed. A check of all three seeds is kept in `results/neighbours`, each by
itself. `--quick`: one seed and fewer images, of the checks whose bars all hold by what is kept: a
check of regressions.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from attribution import attributed
from datadream import WEIGHTS, dreamt
from experts import experts
from imprecise import ARMS, inferred_outfits
from judging import judged_outfits
from measure import RESULTS, finish, keep, parser, report_of
from mining import mined_outfits
from occluded import occluded
from rebalance import rebalanced
from separation import CBDM, OVERLAP, separated
from spread import spread
from towers import adapted
from unknown import unknown_attributes
from unseen import unseen_group

KEPT = RESULTS / "neighbours"
Bars = Callable[[Mapping[str, float]], dict[str, bool]]
"""Means over seeds -> what is judged -> whether it holds."""


def of_cbdm(found: Mapping[str, float]) -> dict[str, bool]:
    """The work of CBDM: groups' predictions come closer, and images are denoised as well."""
    return {
        "sister attributes at most .6 as far apart as without": found["cbdm / off"] <= 0.6,
        "own error within 1 % of that without": abs(found["cbdm error / off"] - 1) <= 0.01,
    }


def of_overlap(found: Mapping[str, float]) -> dict[str, bool]:
    """The opposite, in the same run."""
    return {
        "sister attributes 1.15 times as far apart as without": found["overlap / off"] >= 1.15,
        "own error within 1 % of that without": abs(found["overlap error / off"] - 1) <= 0.01,
        "cbdm below and overlap above": found["cbdm / off"] < 1 < found["overlap / off"],
    }


def of_judge(found: Mapping[str, float]) -> dict[str, bool]:
    """The Diffusion Classifier as a judge of what real images show, and of wrong labels."""
    gain = found["purity: margin"] - found["purity: nothing"]
    alone = found["purity: own error"] - found["purity: nothing"]
    return {
        "shared noise beats independent noise by .30": found["shared"]
        >= found["independent"] + 0.3,
        "group accuracy .78": found["group"] >= 0.78,
        "attribute accuracy .97": found["attribute"] >= 0.97,
        "wrong labels: .10 purer than no filter": gain >= 0.10,
        "both judges not below CLIP by .005": found["purity: both"]
        >= found["purity: clip"] - 0.005,
        "stages say what all timesteps say in 95 %": found["staged, as all"] >= 0.95,
        "without contrast it gains less than .04": alone < 0.04,
    }


def of_cells(found: Mapping[str, float]) -> dict[str, bool]:
    """Cell guidance: images are spread more evenly, and are as right and as new as without."""
    return {
        "30 % less total variation from even shares": found["tv: cell"] <= 0.7 * found["tv: off"],
        "garment and ground right as often, but for 2 points": found["right: cell"]
        >= found["right: off"] - 0.02,
        "no more copies": found["copies: cell"] <= found["copies: off"],
    }


def of_damage(found: Mapping[str, float]) -> dict[str, bool]:
    """GSURE: less harm of damaged images than otherwise, and something learnt of strange ones."""
    own, strange = found["stein"], found["strange: stein"]
    return {
        "below the error of what is seen by .05": own <= found["masked"] - 0.05,
        "below zero-fill by .04": own <= found["zero-fill"] - 0.04,
        "within 10 % of whole images": own <= 1.1 * found["oracle"],
        "released coefficient within .01 of none": abs(found["released"] - found["none"]) <= 0.01,
        "strange images can be learnt (.05 by whole ones)": found["strange: oracle"]
        <= found["strange: base"] - 0.05,
        "strange images: below the untrained base by .02": strange <= found["strange: base"] - 0.02,
        "strange images: below zero-fill": strange < found["strange: zero-fill"],
    }


def of_experts(found: Mapping[str, float]) -> dict[str, bool]:
    """Experts per noise level: a lower held-out error at equal steps."""
    return {
        "lower in two of three bins": found["lower"] >= 2,
        "lower over all bins": found["all / one"] < 1 and found["p"] < 0.01,
    }


def of_datadream(found: Mapping[str, float]) -> dict[str, bool]:
    """Real and synthetic images together, each with a weight; adapters that know few images."""
    inner = [f"{w:g}" for w in WEIGHTS if 0 < w < 1 and f"WGA {w:g}" in found]
    best = max(inner, key=lambda weight: found[f"validation {weight}"])
    ends = max(found["WGA 0"], found["WGA 1"])
    bars = {"the weight that validation likes best is above both ends": found[f"WGA {best}"] > ends}
    near = found.get("adapters: distance / vanilla")  # of full runs
    said = "16 shots: images nearer to held-out ones, by CLIP, than the base's"
    return bars | ({} if near is None else {said: near < 1})


def of_towers(found: Mapping[str, float]) -> dict[str, bool]:
    """CLIP with adapters on both towers, beside heads on CLIP as it is."""
    return {
        "not below heads on the frozen CLIP by a point": found["adapted: WGA"]
        >= found["frozen: WGA"] - 0.01
    }


def of_mining(found: Mapping[str, float]) -> dict[str, bool]:
    """A biased network finds what conflicts, the better for generalised cross-entropy."""
    gce = [value for name, value in found.items() if name.startswith("gce")]
    ce = [value for name, value in found.items() if name.startswith("ce")]
    drawn = [value for name, value in found.items() if name.startswith("synthetic P@K")]
    said = "on drawn images: not below cross-entropy on real ones"
    bars = {said: min(drawn) >= min(ce)} if drawn else {}  # of full runs
    return bars | {
        "generalised cross-entropy: P@K .95 in the worse class": min(gce) >= 0.95,
        "cross-entropy alone .10 lower": statistics.mean(gce) >= statistics.mean(ce) + 0.1,
        "found number: recall .95": found["recall"] >= 0.95,
        "found number: precision .5": found["precision"] >= 0.5,
        "the words are the grounds": found["words"] == 1,
    }


def of_dmis(found: Mapping[str, float]) -> dict[str, bool]:
    """Attributes that are hidden are inferred, better than by what is known alone."""
    recall = {arm: found[f"{arm}: recall"] for arm in ARMS if f"{arm}: recall" in found}
    bars = {"right where it is sure .9": found["dmis: right"] >= 0.9}
    if "longer" not in recall:  # quick: too few steps for more
        return bars | {"not below labels alone": recall["dmis"] >= recall["alone"]}
    return bars | {
        "recall of hidden attributes .93": recall["dmis"] >= 0.93,
        "above labels alone by .04": recall["dmis"] >= recall["alone"] + 0.04,
        "above labels alone at equal CPU time": recall["dmis"] > recall["longer"],
        "above gated pseudo-labels": recall["dmis"] > recall["gated"],
    }


def of_unseen(found: Mapping[str, float]) -> dict[str, bool]:
    """CoInD: words add up, nothing else is lost, and a group without images shows both of its own.

    Bars of ours, set before anything was measured. The grounds got other words afterwards: by their
    own ones the base drew the fourth group right without the term.
    """
    return {
        "independence gap 30 % smaller than without": found["gap: coind / off"] <= 0.7,
        "own error within 1 % of that without": abs(found["error: coind / off"] - 1) <= 0.01,
        "unseen group: both words shown more often than without": found["right: coind"]
        > found["right: off"],
    }


def of_unknown(found: Mapping[str, float]) -> dict[str, bool]:
    """Whole runs without attribute labels."""
    near = {
        f"{name}: within 5 points of the run with attributes": found[name]
        >= found[name.replace("unknown", "given")] - 0.05
        for name in found
        if name.endswith("unknown")
    }
    above = found["0.99 unknown"] >= found["0.99 erm"] + 0.4
    return near | {"0.99 unknown: 40 points above the plain network": above}


def of_rebalance(found: Mapping[str, float]) -> dict[str, bool]:
    """Breeding fills both groups, cheaply and as diverse; what is fitted to them is balanced."""
    bars = {
        "plain images .4 from even shares": found["tv: plain"] >= 0.4,
        "bred ones within .05": found["tv: bred"] <= 0.05,
        "as diverse, but for a tenth": found["distance: bred"]
        >= 0.9 * found["distance: rejection"],
    }
    if "tv: refit" not in found:  # of full runs
        return bars
    quarter = found["images: rejection"] / 4
    third = found["tv: plain"] / 3
    return bars | {
        "a quarter of rejection sampling's images": found["images: bred"] <= quarter,
        "refitted: plain images at most a third as far from even": found["tv: refit"] <= third,
    }


def of_guda(found: Mapping[str, float]) -> dict[str, bool]:
    """GUDA names the groups that models name which were trained without each of them."""
    decides = [s for s in ("0.99", "0.9") if found.get(f"{s} ceiling", 0) >= 0.4]
    if not decides:
        return {"gold agrees with itself in .4: the bed can decide": False}
    s = decides[0]

    def near(which: str) -> bool:
        guda, nearest, ceiling = (
            found[f"{s} {which}{name}"] for name in ("guda", "nearest", "ceiling")
        )
        return guda >= nearest + 0.1 and guda >= 0.7 * ceiling

    said = "as gold in .7 of its own agreement, .10 above the nearest image's group"
    return {
        f"{s}: {said}, of all images or of the hard ones": near("") or near("hard "),
        f"{s}: less time than gold": found[f"{s} CPU s: guda"] < found[f"{s} CPU s: gold-0"],
    }


CHECKS: dict[str, tuple[Callable[[Path, int, bool], dict[str, float]], Bars]] = {
    "diffusion_classifier": (judged_outfits, of_judge),
    "conflict_mining": (mined_outfits, of_mining),
    "dmis": (inferred_outfits, of_dmis),
    "unknown_attributes": (unknown_attributes, of_unknown),
    "cbdm": (lambda *given: separated(*given, arms=(CBDM,)), of_cbdm),
    "cell": (spread, of_cells),
    "coind": (unseen_group, of_unseen),
    "gsure": (occluded, of_damage),
    "guda": (attributed, of_guda),
    "clip_lora": (adapted, of_towers),
    "datadream": (dreamt, of_datadream),
    "overlap": (lambda *given: separated(*given, arms=(CBDM, OVERLAP)), of_overlap),
    "rebalance": (rebalanced, of_rebalance),
    "tdc_lite": (experts, of_experts),
}
"""Name -> (folder, seed, quick) to numbers, and bars of their means."""


def summed_up(each: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Mean, spread over seeds and the seeds' own numbers."""
    return {
        name: {
            "mean": round(statistics.mean(values), 4),
            "sd": round(statistics.stdev(values), 4) if len(values) > 1 else None,
            "seeds": [round(value, 4) for value in values],
        }
        for name in each[0]
        for values in [[one[name] for one in each]]
    }


def holding() -> list[str]:
    """The checks of which every bar held when they were measured as a whole."""
    kept = {path.stem: json.loads(path.read_text()) for path in KEPT.glob("*.json")}
    return [name for name in CHECKS if name in kept and all(kept[name]["bars"].values())]


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--only", nargs="+", choices=CHECKS, help="default: see above")
    options.add_argument("--seeds", nargs="+", type=int, help="default: 0 1 2, quick 0")
    options.add_argument("--folder", help="where models are kept; default: a new one")
    asked = options.parse_args()
    torch.set_num_threads(1)
    folder = Path(asked.folder or tempfile.mkdtemp(prefix="raysynth-neighbours-"))
    some = asked.quick or asked.seeds is not None
    numbers: dict[str, Any] = {}
    bars: dict[str, bool] = {}
    for name in asked.only or (holding() if asked.quick else CHECKS):
        measure, judge = CHECKS[name]
        each = []
        for seed in asked.seeds or ([0] if asked.quick else [0, 1, 2]):
            each.append(measure(folder, seed, asked.quick))
            print(f"  {name}, seed {seed}: {each[-1]}", file=sys.stderr, flush=True)
        numbers[name] = summed_up(each)
        means = {key: statistics.mean([one[key] for one in each]) for key in each[0]}
        held = judge(means)
        if not some:
            keep(report_of(f"neighbours/{name}", numbers[name], held))
        bars |= {f"{name}: {bar}": holds for bar, holds in held.items()}
    finish("neighbours", numbers, bars, quick=True)  # each check is kept by itself


if __name__ == "__main__":
    main()

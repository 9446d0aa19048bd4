"""The model card: names stay names in its Markdown, and it says what the model is and why."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from huggingface_hub import ModelCard

from raysynth.classify.card import Origin, model_card, plain, public_name, training_in_words
from raysynth.classify.hub_header import data_name
from raysynth.config.config import Config
from raysynth.config.files import load_config
from raysynth.evaluation.final import Final
from raysynth.evaluation.results import INFERRED
from raysynth.evaluation.shipping import in_words, shipped
from raysynth.groups.groups import Groups
from raysynth.groups.metrics import GroupMetrics, over_seeds
from raysynth.heads.spec import TRAINED, HeadSpec
from raysynth.references.titles import title_of
from raysynth.training.plan import Phase, Plan

GROUPS = Groups(("a|b", "<img src=x>"), ("[x](http://y)", "c\n# d"), ("a", "b"), ("c", "d"))
OURS = Plan((Phase("synthetic", 10, 0.1, 0.1, ratio=0.5),), (HeadSpec("balanced", 0.1),))
ERM = Plan((Phase("real", 200, 3e-3, 0.1),), (TRAINED,))
USB = Plan((Phase("usb", 200, 3e-3, 0.1),), (TRAINED,))


def final(method: str, plan: Plan, seed: int = 0) -> Final:
    head = plan.heads[0].name
    values = plan.to_dict() | {"seed": seed}
    return Final(method, {"plan": values, "best": {head: {"step": 75, "tuned": {}}}}, head)


def row(kind: str, *validation: float, **more: Any) -> dict[str, Any]:
    tested = GroupMetrics((0.9, 0.8, 0.7, 0.1), 0.1, 0.625, 0.5).to_dict(GROUPS)
    again = tested | {"wga": 0.3}
    judged = [{"wga": wga, "aga": wga} for wga in validation]
    return {
        "kind": kind,
        "uses_validation": False,
        "source": "A paper (arXiv 1)",
        **over_seeds([tested, again]),
        "validation": over_seeds(judged),
        **more,
    }


def card(
    made: Final, own: bool = False, erm: float = 0.5, groups: Groups = GROUPS, **base: str
) -> str:
    config = Config.model_validate({"base": base})
    methods = {
        "erm": row("reference", erm, erm + 0.1),
        "dfr_validation": row("reference", 0.1, 0.1, uses_validation=True),
        "usb": row("mixture", 0.2, 0.2, synthetic={"wanted": 90, "used": 1080}),
        "raysynth": row("raysynth", 0.6, 0.7),
    }
    found = shipped(methods)
    found["words"] = in_words(found, title_of, methods)
    origin = Origin(config, groups, np.array([4, 3, 2, 1]), methods, found, made)
    return model_card(origin, own)


def test_names_are_no_cells_links_html_or_lines():
    text = card(final("raysynth", OURS))
    rows = [line for line in text.splitlines() if line.startswith("| ") and line[-3].isdigit()]
    groups = [row for row in rows if "/" in row]
    assert [row.replace("\\|", "").count("|") for row in groups] == [4] * 4
    assert groups[3] == "| \\<img src=x\\>/c \\# d | 1 | 0.100 |"
    assert "](" not in text and "<img" not in text.replace("\\<img", "")
    assert not any(line.startswith("# d") for line in text.splitlines())
    assert plain("shirt / dark-blue 3.5") == "shirt / dark-blue 3.5"


def test_a_models_folder_is_not_published():
    assert public_name("stabilityai/stable-diffusion-2") == "stabilityai/stable-diffusion-2"
    assert public_name("/home/eve/models/sd `15") == "sd '15"
    text = card(final("raysynth", OURS), name="/home/eve/models/sd15")
    assert "/home/eve" not in text and "`sd15`" in text


def test_raysynths_own_says_whose_images_it_saw_and_what_it_beat():
    text = card(final("raysynth", OURS, 1), own=True)
    assert "Stage 1 trained the encoder on group-balanced synthetic images, 0.5 per real" in text
    assert "Synthetic images: generator `clustered_dreambooth`, base model `embedded`." in text
    assert "synthetic-data" in text and "what the base model knows" in text
    assert "(folder, trust_remote_code=True)" in text and "the Python code of this" in text
    assert "Shipped: raysynth, seed 1; mean validation WGA 65.0 % against 55.0 % of ERM" in text
    assert "number 1, which has the best validation score" in text
    compared = "ERM 55.0 %, DFR \\(validation images\\) 10.0 %, USB mixing 20.0 %, raysynth 65.0 %"
    assert f"WGA of all that was trained: {compared}. Test decided nothing." in text
    assert "| worst group (WGA) | 0.300 | 0.200 |" in text  # seed 1, and the mean of both


def test_a_joint_training_says_how_much_each_kind_of_image_counted():
    joint = {"schedule": "joint", "mix": 0.2}
    settings = Config.model_validate({"classifier": joint}).classifier
    found = {"ratio": 0.5, "steps": 10, "real_share": 0.25}
    said = "on the real images (balanced) and on group-balanced synthetic images, 0.5 per real one"
    weights = "at most, together (weights 0.25 and 0.75), 20% of batches mixed."
    assert training_in_words(settings, found).endswith(f"{said} {weights}")
    alone = training_in_words(settings, found | {"ratio": 0.0})
    assert alone.endswith("(balanced), no synthetic ones, 20% of batches mixed.")


def test_a_reference_claims_no_synthetic_images_and_names_its_source():
    text = card(final("erm", ERM, 1), erm=0.8)
    training = text[text.index("The classifier was trained") : text.index("## Load")]
    assert "on the real images alone, as a reference: ERM." in training
    assert "ERM: cross-entropy on the real images as they come." in training
    assert "Learning rate 0.003, weight decay 0.1, stopped by validation at step 75 of" in training
    assert "Source: A paper \\(arXiv 1\\)." in training
    assert "Synthetic images: none; it was trained on real ones alone." in text
    for claim in ("synthetic-data", "what the base model knows", "generator", "embedded"):
        assert claim not in text
    assert "Synthesis does not pay here: real images alone give a mean validation WGA of" in text


def test_what_was_exported_says_what_was_shipped():
    text = card(final("erm", ERM))
    assert "Exported by name; the run shipped another. Shipped: raysynth, seed 1; " in text
    assert "Of ERM's seeds this is number 0.\n" in text
    judged = card(final("dfr_validation", ERM))
    assert "Its last layer was fitted to validation images too." in judged
    mixed = card(final("usb", USB))
    assert "as a mixture (1,080 synthetic ones): USB mixing. USB, uniform synthetic" in mixed
    assert "synthetic-data" in mixed and "generator `clustered_dreambooth`" in mixed


def test_a_card_says_where_the_groups_of_test_were_inferred():
    said = f"{INFERRED[:1].upper()}{INFERRED[1:]}."
    assert said in card(final("raysynth", OURS), groups=replace(GROUPS, found=True))
    assert "inferred" not in card(final("raysynth", OURS))


def test_its_header_is_read_by_the_hubs_own_library():
    found = ModelCard(card(final("raysynth", OURS, 1))).data
    assert found.license == "unknown" and found.library_name == "transformers"
    told = {(r.dataset_split, r.metric_type): r.metric_value for r in found.eval_results}
    assert told["test", "worst-group-accuracy"] == 0.3
    assert told["validation", "worst-group-accuracy"] == 0.7
    assert told["test", "weighted-accuracy"] == 0.5 and len(told) == 5
    assert found.eval_results[0].dataset_name == "outfits"


def test_it_says_whose_licences_are_known(tmp_path):
    assert "Base model of the synthetic images: Apache-2.0" in card(final("raysynth", OURS))
    unknown = card(final("raysynth", OURS), name=str(tmp_path))
    assert "Base model of the synthetic images: unknown: ask the owner." in unknown
    (tmp_path / "README.md").write_text("---\nlicense: openrail\n---\n# A model\n")
    assert "synthetic images: openrail." in card(final("raysynth", OURS), name=str(tmp_path))
    assert "Base model of the synthetic" not in card(final("erm", ERM))


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (["dataset.name=folder", "dataset.path=data/birds/"], "birds"),
        (["dataset.name=tree", "dataset.path=s3://bucket/birds"], "birds"),
        (["dataset.name=hub", "dataset.path=hf://datasets/owner/birds"], "birds"),
        (["dataset.name=celeba", "dataset.path=data/faces"], "celeba"),
        ([], "outfits"),
    ],
)
def test_images_of_ones_own_are_called_by_their_folder(given, name):
    assert data_name(load_config(None, given).dataset) == name

"""Scorers: columns they declare, embeddings they share, and one of another package."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from raysynth.config.config import Config
from raysynth.errors import ConfigError
from raysynth.generators.inputs import synthesis_inputs
from raysynth.scoring.columns import SYNTHETIC, scores_of, synthetic_schema
from raysynth.scoring.scorer import SCORERS, Images, open_scorers
from raysynth.selection.checks import check_scores
from raysynth.synthesis.task import Task
from tests.synthesis.conftest import GROUPS

SCORES = ["clip_label", "clip_centroid", "clip_score", "nearest", "nearest_similarity"]


def configured(*scorers) -> Config:
    return Config.model_validate({"synthesis": {"scorers": list(scorers)}})


def test_the_usual_table_has_the_columns_it_had():
    assert SYNTHETIC.names[-5:] == SCORES and SYNTHETIC.names[:2] == ["id", "image"]
    assert scores_of(["copies", "clip"]).names == SCORES[3:] + SCORES[:3]
    for name in SCORERS:
        assert SCORERS[name].title and SCORERS[name].source


def test_a_column_twice_is_refused():
    with pytest.raises(ConfigError, match=r"clip declares the column 'clip_label', which is there"):
        scores_of(["clip", "clip"])


def test_selection_refuses_scorers_that_do_not_say_what_it_reads():
    check_scores(Config())
    with pytest.raises(ConfigError, match=r"scorers=\[clip\] say nothing of nearest_similarity, "):
        check_scores(configured("clip"))
    both = {"synthesis": {"scorers": ["clip", "copies"]}, "selection": {"score": "both"}}
    with pytest.raises(ConfigError, match=r"dc_margin, .*clip and copies and diffusion_classifier"):
        check_scores(Config.model_validate(both))
    both["synthesis"]["scorers"].append("diffusion_classifier")
    check_scores(Config.model_validate(both))


def test_scorers_enter_the_digest_where_they_are_not_the_usual_ones():
    usual = synthesis_inputs(Config())
    assert synthesis_inputs(configured("clip", "copies")) == usual
    assert synthesis_inputs(configured("copies", "clip"))["knobs"]["scorers"] == ["copies", "clip"]


def test_embeddings_are_made_once_for_all_scorers(make_config, clusters_folder, monkeypatch):
    task = Task.of(make_config(), GROUPS, "", (), clusters_folder)
    score, seen = open_scorers(task.drawing.synthesis.scorers, task.scoring), []
    clip = type(score.scoring.clip)
    plain = clip.images
    monkeypatch.setattr(clip, "images", lambda self, x: seen.append(len(x)) or plain(self, x))
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    found = score(pixels, pa.table({"group": pa.array([0, 3, 1], pa.int32())}))
    assert seen == [3] and list(found) == SCORES
    for field in scores_of(["clip", "copies"]):
        assert found[field.name].type == field.type and len(found[field.name]) == 3


SCORER = """
    import numpy as np
    import pyarrow as pa

    from raysynth.knobs import Section


    class Knobs(Section):
        scale: float = 1.0


    class Brightness:
        title, source, Knobs = "mean brightness", "nobody", Knobs
        columns = pa.schema([("brightness", pa.float32())])

        def open(self, scoring, knobs):
            def score(images, specs):
                mean = images.pixels.mean(axis=(1, 2, 3), dtype=np.float32)
                return {"brightness": pa.array(knobs.scale * mean, pa.float32())}

            return score


    PART = Brightness()
"""


def test_a_scorer_of_another_package_adds_its_column(add_part, make_config, clusters_folder):
    add_part("raysynth.scoring.scorers", "brightness", SCORER)
    scorers = ["clip", "copies", {"name": "brightness", "scale": 2.0}]
    config = make_config(synthesis={"scorers": scorers})
    names = [scorer.name for scorer in config.synthesis.scorers]
    assert synthetic_schema(names).names == [*SYNTHETIC.names, "brightness"]
    task = Task.of(config, GROUPS, "", (), clusters_folder)
    score = open_scorers(config.synthesis.scorers[2:], task.scoring)
    pixels = np.full((2, 8, 8, 3), 60, np.uint8)
    assert score(pixels, pa.table({}))["brightness"].to_pylist() == [120.0, 120.0]


def test_without_another_encoder_copies_are_found_in_clip_s_space(make_config, clusters_folder):
    scoring = Task.of(make_config(), GROUPS, "", (), clusters_folder).scoring
    images = Images(np.zeros((1, 32, 32, 3), np.uint8), scoring)
    assert images.encoded is images.clip

"""What images are asked for where real ones have captions: whose, in which order, how exactly."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from raysynth.adapters.fused import weights_of
from raysynth.adapters.record import Adapter
from raysynth.config.config import Config
from raysynth.config.files import load_config
from raysynth.errors import ConfigError
from raysynth.generators.lending import settled
from raysynth.generators.recipe import recipe_of
from raysynth.synthesis.captions import with_captions
from raysynth.synthesis.checks import check_guidance
from raysynth.synthesis.drawing import ImageGenerator
from raysynth.synthesis.plan import Spoken, whole
from raysynth.synthesis.specs import Asked, voices_of
from raysynth.synthesis.task import Drawing
from tests.synthesis.conftest import CLUSTERS, GROUPS

COUNTS = [6, 2, 0, 5]
"""Images of each group; the second is too small for a model, of the third there is none."""
OF = [(0, 0)] * 4 + [(0, 1)] * 2 + [(1, 0)] * 2 + [(3, 0)] * 5
CLUSTERED = pa.table(
    {
        "id": [f"i{n:02d}" for n in range(len(OF))],
        "group": pa.array([g for g, _ in OF], pa.int32()),
        "cluster": pa.array([k for _, k in OF], pa.int32()),
    }
)
CAPTIONS = {f"i{n:02d}": f"caption {n}" for n in range(len(OF)) if n != 3}


def config(generator="clustered_dreambooth", images=12, **more) -> Config:
    finetune = {"min_images": 3}
    values = {"generator": generator, "seed": 5, "finetune": finetune}
    return Config.model_validate(
        {**values, "synthesis": {"images_per_group": images, **more.pop("synthesis", {})}, **more}
    )


def adapter(group: int, cluster: int, scope: str = "group_cluster") -> Adapter:
    return Adapter(f"{group}-{cluster}", "lora", scope, group, cluster, "", "", "", 9, 1, 0.0)


def plan_of(given: Config, adapters, captions=None, counts=COUNTS) -> Spoken:
    recipe = settled(recipe_of(given), np.array(counts))
    asked = Asked.of(given, recipe)
    voices = voices_of(asked, adapters, GROUPS, counts)
    said = CAPTIONS if captions is None else captions
    voices = with_captions(voices, given.prompts, recipe, CLUSTERED, counts, said)
    return Spoken(asked, GROUPS, tuple(voices))


def prompts_of(plan: Spoken, group: int, cluster: int | None = None) -> list[str]:
    return [
        row["prompt"]
        for row in whole(plan).to_pylist()
        if row["group"] == group and cluster in (None, row["cluster"])
    ]


def test_a_cluster_is_asked_for_by_the_captions_of_its_own_images():
    plan = plan_of(config(), [adapter(g, k) for g, k in CLUSTERS])
    prompt = "a photo of a sks pullover on grass"
    first = Counter(prompts_of(plan, 0, 0))
    assert first[prompt] and set(first) == {prompt, *(f"{prompt}, caption {n}" for n in range(3))}
    assert max(first.values()) - min(first.values()) <= 1, "each once before any comes again"
    assert set(prompts_of(plan, 0, 1)) == {f"{prompt}, caption {n}" for n in (4, 5)}
    last = Counter(prompts_of(plan, 3))
    assert set(last) == {f"a photo of a sks coat on gravel, caption {n}" for n in range(8, 13)}
    assert [p.rpartition(" ")[2] for p in prompts_of(plan, 3)[:5]] != [
        p.rpartition(" ")[2] for p in prompts_of(plan, 3)[5:10]
    ], "in another order each time"


def test_a_small_group_has_its_own_captions_and_no_others():
    plan = plan_of(config(), [adapter(g, k) for g, k in CLUSTERS])
    lent = "a photo of a pullover on gravel"
    assert set(prompts_of(plan, 1)) == {f"{lent}, caption 6", f"{lent}, caption 7"}
    assert set(prompts_of(plan, 2)) == {"a photo of a coat on grass"}, "of no image, none"


def test_a_prompt_is_a_function_of_the_images_number_alone():
    adapters = [adapter(g, k) for g, k in CLUSTERS]
    plan, more = plan_of(config(), adapters), plan_of(config(images=24), adapters)
    rows = whole(plan)
    alone = pa.concat_tables([plan.specs(n, n + 1) for n in range(rows.num_rows)])
    assert alone.equals(rows)
    longer = {row["id"]: row["prompt"] for row in whole(more).to_pylist()}
    assert all(longer[row["id"]] == row["prompt"] for row in rows.to_pylist())
    order = np.random.default_rng(0).permutation(CLUSTERED.num_rows)
    recipe = plan.asked.recipe
    voices = voices_of(plan.asked, adapters, GROUPS, COUNTS)
    again = with_captions(voices, config().prompts, recipe, CLUSTERED.take(order), COUNTS, CAPTIONS)
    assert tuple(again) == plan.voices
    assert whole(plan_of(config(seed=6), adapters))["prompt"] != rows["prompt"]


def test_off_is_as_it_was():
    adapters = [adapter(g, k) for g, k in CLUSTERS]
    plain = plan_of(config(), adapters, {})
    assert all(not voice.captions for voice, _ in plain.voices)
    said, off = whole(plan_of(config(), adapters)), whole(plain)
    assert said.drop_columns(["prompt"]).equals(off.drop_columns(["prompt"]))


def test_one_model_for_all_and_none_take_a_groups_captions_and_edits_none():
    shared = Adapter("shared", "full", "all", -1, -1, "", "", "", 13, 1, 0.0)
    plan = plan_of(config("shared"), [shared], counts=[6, 3, 3, 5])
    asked = {p.rpartition("caption ")[2] for p in prompts_of(plan, 0)}
    assert {"0", "1", "2", "4", "5"} <= asked
    base = prompts_of(plan_of(config("vanilla"), []), 1)
    assert set(base) == {f"a photo of a pullover on gravel, caption {n}" for n in (6, 7)}
    edited = plan_of(config("edit"), [shared], counts=[6, 3, 3, 5])
    assert all(not voice.captions for voice, _ in edited.voices)


def test_fused_models_of_single_images_are_asked_for_by_the_caption_of_one():
    adapters = [adapter(g, n, "image") for g, c in enumerate(COUNTS) for n in range(c)]
    given = config("loft", finetune={"engine": "lora"})
    plan = plan_of(given, [*adapters, adapter(2, 0, "image")], counts=COUNTS)
    first = {0: 0, 1: 6, 3: 8}
    for row in whole(plan).to_pylist():
        if row["group"] == 2:
            continue
        number = int(next(iter(weights_of(row["adapter"]))).partition("-")[2])
        own = first[row["group"]] + number
        assert row["prompt"].endswith("grass" if own == 3 else f"caption {own}")


def test_captions_are_read_one_by_one_and_cut(make_config, lora_folder):
    """Alone or beside others, kept or read again: the same states to the bit."""
    drawing = Drawing.of(make_config())
    names = tuple(f"{g}-{k}" for g, k in CLUSTERS)
    generate = ImageGenerator(replace(drawing, captioned=True), lora_folder, names)
    prompts = ["a photo of a sks coat on grass, " + "wool " * n for n in (0, 1, 3, 200, 400)]
    together = list(generate._text(prompts).rows())
    generate._conditions.clear()
    for row, prompt in reversed(list(enumerate(prompts))):
        (alone,) = generate._text([prompt]).rows()
        for name, tensor in alone.tensors.items():
            assert (tensor == together[row][name]).all()
    with pytest.raises(ConfigError, match="tokens long"):
        ImageGenerator(drawing, lora_folder, names)._text(prompts)


def test_what_asks_for_words_alone_is_refused(tmp_path):
    settings = ["generator=shared", "dataset.name=tree", f"dataset.path={tmp_path}"]
    cells = "synthesis.guidance=[composed]"
    check_guidance(load_config(None, [*settings, cells]))
    with pytest.raises(ConfigError, match="asks for the words of label and attribute alone"):
        check_guidance(load_config(None, [*settings, cells, "dataset.captions=txt"]))

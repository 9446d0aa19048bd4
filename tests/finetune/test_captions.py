"""Images' own captions in training: what each hears, neighbours, resume, captions that are cut."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from raysynth.errors import ConfigError
from raysynth.finetune.captions import with_captions
from raysynth.finetune.material import heard
from raysynth.finetune.training import train_pack
from raysynth.groups.settings import PromptConfig
from raysynth.models.base import load_base
from tests.finetune.test_training import Killed, assert_same, killed_after, quiet, weights

PROMPT = "a photo of a sks pullover on grass"
LONG = "of small wool " * 40


def captions_of(jobs, *said):
    """Captions of all images of some jobs, but for the first of each; `said` in turn."""
    return {name: said[n % len(said)] for job in jobs for n, name in enumerate(job.ids[1:])}


def told(pack, *said):
    """The pack, its images captioned."""
    captions = captions_of(pack.jobs, *said)
    jobs = [with_captions(job, PromptConfig(), captions) for job in pack.jobs]
    return replace(pack, jobs=jobs)


def test_every_image_hears_its_groups_prompt_and_its_own_caption(room):
    (job, *_) = room.jobs(room.config())
    captioned = with_captions(job, PromptConfig(), captions_of([job], "red", "blue"))
    assert captioned.captions[:3] == (PROMPT, f"{PROMPT}, red", f"{PROMPT}, blue")
    said, place = captioned.spoken
    assert [said[n] for n in place] == list(captioned.captions) and len(said) == 3
    assert captioned.prompts == job.prompts and captioned.plain_prompts == job.plain_prompts
    assert with_captions(job, PromptConfig(), {}) is job
    assert with_captions(job, PromptConfig(), {"another": "red"}) is job
    own = PromptConfig(captioned="{caption} ({prompt})")
    assert with_captions(job, own, {job.ids[1]: "red"}).captions[1] == f"red ({PROMPT})"


def test_a_model_of_several_groups_is_told_them_apart(room):
    job = room.jobs(room.config("shared"))[0]
    captioned = with_captions(job, PromptConfig(), captions_of([job], "red"))
    for said, group, number in zip(captioned.captions, job.groups, range(99), strict=False):
        assert said == f"{job.prompts[group]}, red" if number else said == job.prompts[group]
    assert len(job.prompts) > 1 and len(set(captioned.captions)) == len(job.prompts) + 1


def test_alone_packed_and_resumed_are_the_same_and_captions_decide(room, tmp_path, monkeypatch):
    config = room.config(steps=4)
    said = ("red", "blue", LONG)
    assert train_pack(told(room.pack(config, tmp_path / "packed"), *said), quiet) == {}
    for name, pack in (("alone", said), ("other", ("green",)), ("none", ())):
        one = room.pack(config, tmp_path / name, ["0-1"])
        assert train_pack(told(one, *pack) if pack else one, quiet) == {}
    with monkeypatch.context() as patch:
        killed_after(patch, 3)
        with pytest.raises(Killed):
            train_pack(told(room.pack(config, tmp_path / "cut", ["0-0", "0-1"]), *said), quiet)
    assert train_pack(told(room.pack(config, tmp_path / "cut"), *said), quiet) == {}
    alone = weights(tmp_path / "alone", "0-1")
    for name in ("packed", "cut"):
        assert_same(alone, weights(tmp_path / name, "0-1"))
    for name in ("other", "none"):
        with pytest.raises(AssertionError):
            assert_same(alone, weights(tmp_path / name, "0-1"))


def test_a_long_caption_is_cut_and_a_long_prompt_is_not(room):
    (job, *_) = room.jobs(room.config())
    base = load_base(room.config().base, ("text",))
    captioned = with_captions(job, PromptConfig(), dict.fromkeys(job.ids, LONG))
    cut = heard(base, captioned, captioned.spoken[0])
    more = heard(base, captioned, [f"{said} of wool" for said in captioned.spoken[0]])
    assert all(torch.equal(cut[name], more[name]) for name in cut.tensors)
    plain = heard(base, captioned, [PROMPT])
    assert any(not torch.equal(cut[name], plain[name]) for name in cut.tensors)
    with pytest.raises(ConfigError, match="tokens long"):
        heard(base, job, captioned.spoken[0])


def test_many_captions_are_read_a_few_at_once(room, monkeypatch):
    (job, *_) = room.jobs(room.config())
    base = load_base(room.config().base, ("text",))
    prompts = [f"{PROMPT}, {'red ' * n}" for n in range(5)]
    captioned = replace(job, cuts=True)
    at_once = heard(base, captioned, prompts)
    monkeypatch.setattr("raysynth.finetune.material.ENCODE_BATCH", 2)
    some = heard(base, captioned, prompts)
    for name in at_once.tensors:
        torch.testing.assert_close(some[name], at_once[name], rtol=1e-4, atol=1e-5)


def test_prior_images_have_no_captions(room, tmp_path):
    config = room.config(prior_weight=1.0, prior_images=2, steps=2)
    drawn = []
    for name, said in (("plain", ()), ("told", ("red",))):
        pack = room.pack(config, tmp_path / name, ["3-0"])
        assert train_pack(told(pack, *said) if said else pack, quiet) == {}
        drawn.append((tmp_path / name / ".prior" / "3.safetensors").read_bytes())
    assert drawn[0] == drawn[1]

"""The report of a finished run: one self-contained page, its numbers, its pictures."""

from __future__ import annotations

import hashlib
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import raysynth.report
from raysynth.classify.card import training_in_words
from raysynth.errors import DamagedError, DataError
from raysynth.evaluation.results import INFERRED
from raysynth.evaluation.shipping import in_words, shipped
from raysynth.progress import Progress
from raysynth.references.titles import title_of
from raysynth.report.content import Measured, read_content, synthetic_images
from raysynth.report.copies import pair_sheets
from raysynth.report.page import Shown, number, percent, render
from raysynth.report.results import results
from raysynth.report.sheets import contact_sheets
from raysynth.report.stage import file_names, run_report
from raysynth.report.summary import print_summary
from raysynth.storage.tables import read_table, write_table
from raysynth.strips import thumbnails
from tests.report.made_run import (
    ACCURACY,
    CANDIDATES,
    CLUSTERS,
    COUNTS,
    GROUPS,
    fidelity,
    finished,
    make_run,
)


def bare(page: str) -> str:
    """A page without what its tables say for narrow screens and for readers that speak."""
    page = re.sub(r' (?:role|scope|data-label|aria-label)="[^"]*"', "", page)
    return re.sub(r"<td([^>]*)><span>(.*?)</span></td>", r"<td\1>\2</td>", page, flags=re.DOTALL)


def without_library(page: str) -> str:
    """A page without the library of plots, which is not ours."""
    return re.sub(r"<script>\s*/\*.*?</script>", "", page, flags=re.DOTALL)


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    config, run = make_run(tmp_path_factory.mktemp("runs"), "name=small")
    stage = run.stage("report", {}, lambda work: run_report(config, run, work, Progress()))
    return config, run, Path(stage.path), stage.facts


@pytest.fixture(scope="module")
def page(reported) -> str:
    return bare((reported[2] / "index.html").read_text())


class References(HTMLParser):
    """Collects what a browser would fetch, and the tags that are opened and not closed."""

    VOID = ("meta", "img", "br", "link", "input", "hr")

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.open: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        self.fetched += [
            value or "" for key, value in attrs if key in ("src", "href", "xlink:href", "srcset")
        ]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag("br", attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_fetches_nothing(reported):
    page = (reported[2] / "index.html").read_text()
    parser = References()
    parser.feed(page)
    assert parser.open == []
    assert parser.fetched
    links = ("#", "data:image/", "gallery.html")
    assert all(value.startswith(links) for value in parser.fetched)
    assert not {"link", "iframe"} & parser.tags
    assert not re.search(r"url\((?!#)|@import", without_library(page))


def test_the_library_of_plots_is_the_published_file():
    folder = Path(raysynth.report.__file__).parent / "vendor"
    told, name = (folder / "SHA256SUMS").read_text().split()
    assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == told
    assert "</script" not in (folder / name).read_text()


def test_the_page_tells_groups_methods_and_rules(page):
    for name in ("pullover/grass", "coat/gravel", "Group-DRO", "ERM + balanced last layer"):
        assert name in page
    assert page.count('<span class="tag conflict">bias-conflicting</span>') == 2 * 2
    for tag in ("real only", "trains on validation images", "control", "equalized odds"):
        assert tag in page
    assert "validation images alone" in page and "used once" in page
    assert "the half of these that their tuning does not train on" in page
    assert "Stage 1 trained the encoder on group-balanced synthetic images" in page
    assert "pretrained" not in page.replace(page[page.index("Resolved configuration") :], "")
    assert "config_digest" not in page and "severity: 0.99" in page


def test_test_may_be_in_other_groups_than_training(reported):
    """As a grouping method leaves it: more groups of test than there are of training."""
    config, run, _, _ = reported
    content = read_content(config, run)
    assert not content.is_regrouped and "measured_groups" not in results(content)
    given = replace(GROUPS, attribute_names=("ice", "mud", "sand"))
    content = replace(
        content,
        measured=Measured(given, np.arange(30, 36)),
        counts=content.counts | {"test": np.arange(20, 26)},
        methods=tuple(replace(m, groups=(m.groups * 2)[:6]) for m in content.methods),
    )
    assert results(content)["measured_groups"] == given.names
    page = bare(render(content, None, Shown()))
    for told in ("pullover/ice 20", "coat/sand 25.", "<th>pullover/mud<span", "31 in training"):
        assert told in page
    assert page.count("<td>–</td>") >= GROUPS.count


def test_the_headline_compares_with_the_best_reference(reported, page):
    config, run, _, _ = reported
    content = read_content(config, run)
    assert content.best_reference.name == "erm_balanced_head"  # others use validation images
    margin = 100 * (content.ours.wga.mean - content.best_reference.wga.mean)
    assert f"{margin:.1f}&nbsp;points above" in page


def test_every_group_cluster_has_a_sheet(reported, page):
    _, _, folder, facts = reported
    sheets = sorted(path.name for path in (folder / "sheets").iterdir())
    assert len(sheets) == sum(CLUSTERS) == facts["rows"] == page.count('class="cluster"')
    assert "coat-gravel-2.png" in sheets
    assert f"<b>Real</b> ({COUNTS['train'][3] // 3 + 1})" in page
    assert Image.open(folder / "sheets" / sheets[0]).width > 300


def test_edited_images_stand_above_what_became_of_them(tmp_path, page):
    config, run = make_run(tmp_path, "generator=edit")
    sheets = contact_sheets(read_content(config, run), run)
    for sheet in sheets:
        strips = {strip.kind: strip for strip in sheet.strips}
        assert list(strips) == ["real", "edited", "kept", "rejected"]
        assert strips["edited"].image.size == strips["kept"].image.size
    conflicting = next(sheet for sheet in sheets if sheet.group == 1)
    # Flat colours tell the groups apart: pullovers on gravel were made of those on grass.
    assert np.asarray(conflicting.strips[1].image)[0, 0, :3].tolist() == [200, 60, 60]
    stage = run.stage("report", {}, lambda work: run_report(config, run, work, Progress()))
    mine = (Path(stage.path) / "index.html").read_text()
    assert mine.count("<b>Real, edited</b>") == sum(CLUSTERS) and "in the same order" in mine
    assert "Real, edited" not in page and "in the same order" not in page, "nothing is edited there"


def test_copies_are_counted_and_shown_beside_their_originals(reported, page):
    _, _, folder, _ = reported
    assert sorted(path.name for path in (folder / "copies").iterdir()) == [
        *("coat-grass.png", "coat-gravel.png", "pullover-grass.png", "pullover-gravel.png"),
    ]
    assert "1 of 48 synthetic images were rejected as copies" in page
    assert "<b>Rejected as copies</b> (1): similarity 0.75 to 0.75" in page
    assert "<b>Most similar that were kept</b> (9): similarity 0.90 to" in page
    assert "<td>0.700</td><td>0 + 1</td>" in page
    results = json.loads((folder / "results.json").read_text())
    assert results["counts"]["copies"] == [1, 0, 0, 0]
    assert results["selection"]["copies"]["pullover/grass"] == {"0": 0, "1": 1}


def test_fidelity_is_told_in_words_beside_its_floors(reported, page):
    _, _, folder, _ = reported
    told = page[page.index('id="fidelity"') : page.index('id="copies"')]
    for part in (
        "the embedded small network, trained on other garments",
        "far from real: 5.0 times the floor; narrower: red-green</td>",
        "no distance can be known from 9 real and 9 kept images; 100 and 50 are needed</td>",
        '3.5 <span class="pm">floor 0.7</span>',
        '0.60 <span class="pm">0.50 to 0.70</span>',
        "<td>as real images</td>".replace("<td>", '<td class="text">'),
        "<tr><th>gravel</th><td>–</td><td>–</td><td>4</td></tr>",
        "; 50 is chance",
    ):
        assert part in told, part
    results = json.loads((folder / "results.json").read_text())
    assert results["fidelity"]["groups"]["pullover/gravel"]["spread"]["contrast"] is None
    assert results["unfaithful"] == ""


def test_images_that_do_not_show_their_label_are_said_first(reported, capsys, tmp_path):
    config, run, _, _ = reported
    content = replace(read_content(config, run), fidelity=fidelity("coat/grass"))
    page = bare(render(content, None, Shown()))
    used = "ynthetic images of coat/grass do not show their label, and were used"
    assert page.index(used) < page.index('<section id="data">')
    assert "does not show its label" in page
    told = results(content)
    (tmp_path / "results.json").write_text(json.dumps(told))
    print_summary(str(tmp_path), Console(width=200))
    assert used in capsys.readouterr().out
    selection = config.selection.model_copy(update={"on_unfaithful": "real_only"})
    content = replace(content, config=config.model_copy(update={"selection": selection}))
    assert results(content)["unfaithful"].startswith("no synthetic image was used")
    before = replace(content, fidelity={})  # a run of an earlier version
    assert 'id="fidelity"' not in bare(render(before, None, Shown())) and not before.unfaithful


def test_pairs_stand_above_each_other(reported):
    config, run, _, _ = reported
    sheets = pair_sheets(read_content(config, run), run)
    copies, kept = sheets[0].strips
    assert (copies.image.width, copies.image.height) == (16, 33)  # one pair
    assert kept.image.width == 8 * 17 - 1 and sheets[1].strips[0].image is None
    assert list(sheets[0].similarities[1]) == sorted(sheets[0].similarities[1], reverse=True)


def test_inline_images_are_images(page):
    import base64

    sources = re.findall(r'src="data:image/\w+;base64,([^"]+)"', page)
    assert len(sources) >= 2 * sum(CLUSTERS)
    for source in sources:
        image = Image.open(io.BytesIO(base64.b64decode(source)))
        assert image.width >= 16


def test_results_json_has_the_documented_keys(reported):
    config, _, folder, _ = reported
    results = json.loads((folder / "results.json").read_text())
    assert results["dataset"] == "outfits"
    assert results["severity"] == 0.99
    assert results["config_digest"] == config.digest()
    assert set(results["methods"]) == set(ACCURACY)
    for values in results["methods"].values():
        for key in ("wga", "aga", "weighted"):
            assert set(values[key]) == {"mean", "std", "seeds"}
            assert np.mean(values[key]["seeds"]) == pytest.approx(values[key]["mean"])
        assert set(values["groups"]) == set(results["groups"])
    assert set(results["timings"]) >= {"ingest", "classification"}
    assert all(spent["memory"] > 1e6 for spent in results["spent"].values())
    assert results["counts"]["train"] == list(COUNTS["train"])
    assert results["counts"]["candidates"] == [CANDIDATES] * GROUPS.count
    assert results["counts"]["kept"] == [CANDIDATES * 3 // 4] * GROUPS.count
    assert results["search"]["trials"] == 14


def test_plots_are_written_as_png_and_take_the_pages_colours(reported, page):
    names = ("methods", "search", "utilisation", "scores", "looks")
    for name in names:
        assert Image.open(reported[2] / "plots" / f"{name}.png").width > 800
    svg = re.findall(r"<svg.*?</svg>", without_library(page), re.DOTALL)
    assert len(svg) == len(names)
    assert all("var(--muted)" in figure for figure in svg)


def test_the_same_run_gives_the_same_page(reported, tmp_path):
    config, run, folder, _ = reported
    run_report(config, run, str(tmp_path), Progress())
    for file in sorted(folder.glob("*.*")):
        assert (tmp_path / file.name).read_bytes() == file.read_bytes(), file.name


def test_summary_ends_with_table_and_path(reported):
    folder = reported[2]
    console = Console(file=io.StringIO(), width=100)
    print_summary(str(folder), console)
    lines = console.file.getvalue().rstrip().splitlines()
    assert lines[-1] == f"Report: {folder}/index.html"
    means = json.loads((folder / "results.json").read_text())["methods"]["raysynth"]
    assert "Rule: validation worst-group accuracy." in lines
    assert "* trains on validation images too." in lines
    assert next(line for line in lines if "*" in line).startswith("│ DFR (validation images)* ")
    row = next(line for line in lines if "│ raysynth" in line)
    assert f"{100 * means['wga']['mean']:.1f} ± {100 * means['wga']['std']:.1f}" in row


def test_a_frozen_pretrained_backbone_is_told_as_what_it_is(tmp_path):
    start = ("classifier.start=pretrained", "references.start=scratch")
    config, run = make_run(tmp_path, *start)
    best = finished(run, "search") / "best.json"
    frozen = {"ratio": 0.3, "steps": 0, "head_real_share": 0.2}
    best.write_text(json.dumps(json.loads(best.read_text()) | {"parameters": frozen}))
    content = read_content(config, run)
    assert content.training == (
        "Stage 1 was left out (encoder: small, as it was loaded); stage 2 fitted the linear head "
        "(balanced) on the real training images (weight 0.2) and the synthetic ones (weight 0.8), "
        "encoder frozen."
    )
    assert content.ours.tags == ("pretrained start",)
    assert content.best_reference.tags == ("real only",)
    assert "control" in next(m for m in content.methods if m.kind == "control").tags
    other = config.classifier.model_copy(update={"schedule": "joint"})
    assert "real images (balanced), no synthetic" in training_in_words(other, frozen | {"ratio": 0})


def test_mixtures_say_whose_images_and_how_many_they_had(reported, page):
    had = "36 of 83 clustered_dreambooth images"
    assert f'<span class="tag">mixed in</span> <span class="tag">{had}</span>' in page
    console = Console(file=io.StringIO(), width=140)
    print_summary(str(reported[2]), console)
    assert f"USB mixing ({had})" in console.file.getvalue()
    assert synthetic_images({"synthetic": {"wanted": 8000, "used": 8000}}, "edit") == (
        "8,000 edit images"
    )


def _rewritten(run, stage: str, name: str, change) -> None:
    path = finished(run, stage) / name
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def said_at_the_end(folder: Path) -> str:
    console = Console(file=io.StringIO(), width=400)
    print_summary(str(folder), console)
    return console.file.getvalue().rstrip().splitlines()[-2]


def shipping(values) -> None:
    """What the classification stage adds: Group-DRO of higher validation scores is shipped."""
    for name, wga in (("group_dro", (0.9, 0.9, 0.9)), ("raysynth", (0.75, 0.74, 0.76))):
        validation = {"seeds": list(wga), "mean": float(np.mean(wga)), "std": 0.01}
        values["methods"][name]["validation"] |= {"wga": validation}
    found = shipped(values["methods"])
    values["shipped"] = found | {"words": in_words(found, title_of, values["methods"])}


def test_what_is_shipped_and_why_is_said_everywhere(tmp_path):
    config, run = make_run(tmp_path)
    _rewritten(run, "classification", "results.json", shipping)
    run_report(config, run, str(tmp_path / "out"), Progress())
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    found = results["shipped"]
    assert (found["name"], found["kind"], found["seed"]) == ("group_dro", "reference", 0)
    said = (
        "Synthesis does not pay here: real images alone give a mean validation WGA of 90.0 %, "
        "raysynth's own classifier 75.0 %."
    )
    assert said in found["words"]
    page = (tmp_path / "out" / "index.html").read_text()
    assert page.count(said.replace("'", "&#39;")) == 1
    tested = {n: 100 * results["methods"][n]["wga"]["mean"] for n in ("group_dro", "raysynth")}
    assert f"worst-group accuracy {tested['raysynth']:.1f}&nbsp;%, " in page
    assert "; Group-DRO is shipped</h1>" in page
    assert f"decides nothing: Group-DRO {tested['group_dro']:.1f}&nbsp;%, raysynth" in page
    assert 'Group-DRO <span class="tag">shipped</span>' in page
    assert "Use what is in classifier/model: Group-DRO" in page
    assert "raysynth's own training: Stage 1 trained" in page
    assert said_at_the_end(tmp_path / "out") == found["words"]


def test_a_mixture_that_is_shipped_has_the_headline(tmp_path):
    config, run = make_run(tmp_path)

    def usb(values):
        values["methods"]["usb"]["validation"]["wga"]["seeds"] = [1.0, 1.0, 1.0]
        shipping(values)

    _rewritten(run, "classification", "results.json", usb)
    run_report(config, run, str(tmp_path / "out"), Progress())
    page = (tmp_path / "out" / "index.html").read_text()
    assert "; USB mixing is shipped</h1>" in page
    assert "WGA, USB mixing, shipped" in page and "does not pay" not in page


def test_a_run_of_an_earlier_version_says_that_it_shipped_its_own(tmp_path):
    config, run = make_run(tmp_path)

    def before(values):
        shipping(values)
        del values["shipped"]

    _rewritten(run, "classification", "results.json", before)
    run_report(config, run, str(tmp_path / "out"), Progress())
    said = said_at_the_end(tmp_path / "out")
    assert said.startswith("Shipped: raysynth, seed 2; mean validation WGA 75.0 % against 90.0 %")
    assert "the version that made this run always shipped raysynth's own" in said
    page = (tmp_path / "out" / "index.html").read_text()
    assert "points above" in page and "raysynth export group_dro" in page
    # A run that is found finished keeps its report, whose numbers say the same.
    path = tmp_path / "out" / "results.json"
    older = json.loads(path.read_text())
    del older["shipped"]
    path.write_text(json.dumps(older))
    assert said_at_the_end(tmp_path / "out") == said


def test_images_in_both_splits_are_told(tmp_path):
    config, run = make_run(tmp_path)

    def change(manifest):
        twice = dict.fromkeys(manifest["stages"]["selection"]["facts"]["copies"], 0)
        manifest["stages"]["selection"]["facts"]["validation_in_training"] = twice | {
            "coat/grass": 2
        }

    path = Path(run.path("manifest.json"))
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))
    run_report(config, run, str(tmp_path / "out"), Progress())
    page = (tmp_path / "out" / "index.html").read_text()
    assert "2 validation image(s) stand in training too (coat/grass: 2)" in page
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["selection"]["validation_in_training"]["coat/grass"] == 2


def test_numbers_that_there_are_not(tmp_path):
    """A measure that does not exist is a dash; an accuracy that is lost, or NaN, is no WGA."""
    config, run = make_run(tmp_path)

    def without_odds(values):
        values["methods"]["erm"]["equalized_odds"] = {
            "mean": None,
            "std": None,
            "seeds": [None] * 3,
        }

    _rewritten(run, "classification", "results.json", without_odds)
    run_report(config, run, str(tmp_path / "out"), Progress())
    assert "<td>–</td>" in bare((tmp_path / "out" / "index.html").read_text())

    def lost(values):
        del values["methods"]["erm"]["groups"]["coat/grass"]

    _rewritten(run, "classification", "results.json", lost)
    with pytest.raises(DataError, match=r"erm has no accuracy of group\(s\) coat/grass.*Fix"):
        read_content(config, run)

    def broken(values):
        del values["methods"]["erm"]
        values["methods"]["usb"]["wga"]["seeds"][1] = float("nan")

    _rewritten(run, "classification", "results.json", broken)
    with pytest.raises(DataError, match="usb: wga"):
        read_content(config, run)


def test_every_group_has_files_of_its_own():
    assert file_names(["a b/c", "b/c"]) == ["a_b-c", "b-c"]
    alike = file_names(["a b/c", "a_b/c", "a-b/c", "a/b-c", "A B/C"])
    assert alike == ["0-a_b-c", "1-a_b-c", "2-a-b-c", "3-a-b-c", "4-A_B-C"]
    long = file_names(["x" * 300 + "/1", "x" * 300 + "/2", "\U0001d4d0" * 99])
    assert len(set(long)) == 3 and max(len(name.encode()) for name in long) < 230
    assert file_names(["../x/y", "<b>|\n"]) == ["..-x-y", "_b___"]


def test_a_run_without_search_and_adapters_is_reported_too(tmp_path):
    config, run = make_run(tmp_path, "search.trials=0", "generator=vanilla")
    best = finished(run, "search") / "best.json"
    (finished(run, "search") / "trials.parquet").unlink()
    parameters = json.loads(best.read_text())["parameters"]
    best.write_text(json.dumps({"parameters": parameters, "validation": None}))
    (finished(run, "finetune") / "adapters.json").write_text("[]")
    run_report(config, run, str(tmp_path / "out"), Progress())
    page = (tmp_path / "out" / "index.html").read_text()
    assert 'id="search"' not in page and 'id="adapters"' not in page
    assert "vanilla" in page


def test_what_ingest_left_out_is_on_the_page(tmp_path):
    config, run = make_run(tmp_path, "name=small")
    said = {"left_out": "left out: 32 image(s) that cannot be read (a<b>.png)", "repeated": ""}
    manifest = run.manifest()
    manifest["stages"]["ingest"]["facts"] |= said
    Path(run.path("manifest.json")).write_text(json.dumps(manifest))
    run_report(config, run, str(tmp_path / "out"), Progress())
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {key: results[key] for key in said} == said
    page = (tmp_path / "out" / "index.html").read_text()
    assert page.count("Left out: 32 image(s) that cannot be read (a&lt;b&gt;.png)") == 1


def test_numbers_are_spoken():
    assert [percent(0.4567), percent(1)] == ["45.7", "100.0"]
    assert [number(v) for v in (1234, 0.00123456, "sgd", [1, 2])] == [
        "1,234",
        "0.00123",
        "sgd",
        "1 / 2",
    ]


FOUND = {
    "method": "conflict_mining",
    "aligned": {"pullover": "grass", "coat": "gravel"},
    "confidence": dict(zip(GROUPS.names, (0.987, 0.876, 0.765, None), strict=True)),
    "unsure": dict(zip(GROUPS.names, (0.012, 0.023, 0.034, None), strict=True)),
}


def test_accuracies_of_inferred_groups_are_never_said_to_be_measured(reported, tmp_path):
    config, run, _, _ = reported
    content = read_content(config, run)
    found = replace(GROUPS, found=True)
    inferred = replace(
        content,
        groups=found,
        measured=Measured(found, content.measured.counts),
        grouping={"found": FOUND},
    )
    told = results(inferred)
    assert told["inferred"] == INFERRED and told["found"] == FOUND
    page = bare(render(inferred, None, Shown()))
    assert ": accuracy of the worst inferred group" in page
    assert f"<strong>{INFERRED[:1].upper()}{INFERRED[1:]}.</strong>" in page
    assert "WGA of inferred groups" in page and "Accuracy of each inferred group" in page
    assert "Most of a class show: pullover grass, coat gravel;" in page
    assert "<td>98.7</td><td>1.2</td>" in page and "<td>–</td><td>–</td>" in page
    kept = FOUND | {"inferred": {"train": 1234, "validation": 0}, "known": 56, "own": {}}
    other = bare(render(replace(inferred, grouping={"found": kept}), None, Shown()))
    said = "It inferred the attributes of 1,234 train, 0 validation images, and kept those that are"
    assert said in other and "also of 56 training" in other and "decided nothing" not in other
    # Classes are known: pullover's accuracy is that of its groups, by their test images.
    erm = next(m for m in inferred.methods if m.name == "erm")
    uneven = replace(inferred, counts=inferred.counts | {"test": np.array([30, 10, 5, 5])})
    means = [spread.mean for spread in erm.groups]
    assert uneven.of_classes(erm) == pytest.approx(
        (0.75 * means[0] + 0.25 * means[1], (means[2] + means[3]) / 2)
    )
    (tmp_path / "results.json").write_text(json.dumps(told))
    console = Console(file=io.StringIO(), width=300)
    print_summary(str(tmp_path), console)
    assert f"Warning: {INFERRED}." in console.file.getvalue()
    assert "WGA of inferred groups" in console.file.getvalue()
    assert not content.inferred and "inferred" not in results(content)


def test_found_groups_stand_beside_the_data_sets_own(reported):
    config, run, _, _ = reported
    content = read_content(config, run)
    own = {"pullover/grass": {"pullover/grass": 29, "pullover/gravel": 1}, "coat/grass": {}}
    facts = {"found": {**FOUND, "known": 77, "own": own}}
    content = replace(content, groups=replace(GROUPS, found=True), grouping=facts)
    page = bare(render(content, None, Shown()))
    assert "inferred group" not in page and "30 in training" in page
    assert "of pullover/grass 29 in pullover/grass, 1 in pullover/gravel;" in page
    few = replace(content, grouping={"found": {**facts["found"], "known": 5}})
    page = bare(render(few, None, Shown()))
    assert "are known of 5 training images" in page and "30 in training" not in page
    assert "the weighted average is that over groups" in page


def test_an_audit_is_a_table_of_groups(reported):
    config, run, _, _ = reported
    plain = read_content(config, run)
    assert not plain.audits and 'id="audit"' not in bare(render(plain, None, Shown()))
    assert "audits" not in results(plain)
    row = dict.fromkeys(plain.groups.names, 0)
    asked = {"pullover/grass": row | {"pullover/grass": 3, "coat/grass": 1}}
    facts = {"rows": 4, "method": "guda", "own": 0.75, "asked": asked}
    selection = plain.selection | {"leaks": row | {"coat/gravel": 5}}
    content = replace(plain, audits={"shared": facts}, selection=selection)
    page = bare(render(content, None, Shown()))
    told = page[page.index('id="audit"') : page.index('id="copies"')]
    assert "4 images of shared were audited (guda)" in told and "75.0 % owe most" in told
    assert '<tr><th>pullover/grass <span class="pm">of 4</span></th>' in told
    assert '--v:0.750">75.0</td>' in told and '--v:0.250">25.0</td>' in told
    assert "were dropped, of all candidates:" in told and "coat/gravel 5" in told
    assert results(content)["audits"] == {"shared": facts}
    assert results(content)["selection"]["leaks"]["coat/gravel"] == 5


def test_images_that_are_not_there_are_not_left_out_in_silence(tmp_path):
    config, run = make_run(tmp_path)
    content = read_content(config, run)
    with pytest.raises(DataError, match=r"1 of 2 images are not there, e\.g\. nobody.*verify"):
        thumbnails(run.folder("ingest"), ["nobody", "real-0-0000"])
    shard = Path(run.folder("synthesis"), "group-1-00000.parquet")
    write_table(read_table(str(shard.parent), files=[str(shard)]).slice(0, 5), str(shard))
    with pytest.raises(DamagedError, match=r"group-1-00000\.parquet: 5 rows, expected 12"):
        pair_sheets(content, run)

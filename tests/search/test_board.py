"""Trials are copied to a database of Optuna's; what is searched is the same with and without."""

from __future__ import annotations

from types import SimpleNamespace

import optuna
import pyarrow.parquet as pq
import pytest

from raysynth.progress import Progress
from raysynth.search.board import Board
from raysynth.search.space import search_space
from raysynth.search.stage import run_search
from tests.training.test_units import Said
from tests.training.tiny import tiny_config, tiny_groups, write_tiny_run

SPACE = search_space(tiny_config().classifier, tiny_config().search)
VALUES = {"ratio": 0.5, "beta": 0.5, "temperature": 0.1, "learning_rate": 2e-3}


def trial(name: str, wga: float) -> SimpleNamespace:
    last = {"validation_wga": wga, "validation_aga": wga + 0.1, "training_iteration": 2}
    return SimpleNamespace(trial_id=name, config=VALUES, last_result=last, metric_analysis={})


def test_a_search_that_goes_on_has_its_study_and_another_one_another(tmp_path):
    url, said = f"sqlite:///{tmp_path}/trials.db", []
    first = Board(url, "birds", SPACE, said.append)
    first.add("one", trial("a", 0.5), whole=True)
    again = Board(url, "birds", SPACE, said.append)
    for each in (trial("a", 0.5), trial("b", 0.6)):
        again.add("one", each, whole=each.trial_id == "a")
    Board(url, "birds", SPACE, said.append).add("two", trial("c", 0.7), whole=True)
    assert not said
    names = {each.study_name for each in optuna.get_all_study_summaries(url)}
    assert names == {"birds one", "birds two"}
    found = optuna.load_study(study_name="birds one", storage=url).trials
    assert [each.user_attrs["trial"] for each in found] == ["a", "b"]
    assert [each.state.name for each in found] == ["COMPLETE", "PRUNED"]
    assert found[0].params == VALUES and found[0].value == 0.5


def test_a_database_that_fails_is_said_once_without_its_secrets(tmp_path):
    said: list[str] = []
    board = Board(f"sqlite:///{tmp_path}/no/such/folder/trials.db", "birds", SPACE, said.append)
    for name in "ab":
        board.add("one", trial(name, 0.5), whole=True)
    assert len(said) == 1 and "the search goes on without it" in said[0]


@pytest.mark.slow
def test_the_same_trials_are_searched_with_a_database_and_without(ray_local, tmp_path):
    folders, url = write_tiny_run(str(tmp_path)), f"sqlite:///{tmp_path}/trials.db"
    found = []
    for name, more in (("plain", []), ("copied", [f"search.storage={url}"])):
        config = tiny_config("search.trials=3", "search.concurrent=1", *more)
        run_search(config, *folders.values(), tiny_groups(), f"{tmp_path}/{name}", Progress())
        rows = pq.read_table(f"{tmp_path}/{name}/trials.parquet").to_pylist()
        found.append([{k: v for k, v in r.items() if k not in ("trial", "seconds")} for r in rows])
    assert found[0] == found[1]
    (summary,) = optuna.get_all_study_summaries(url)
    assert summary.n_trials == 3 and summary.study_name.startswith("quickstart ")
    assert summary.best_trial.value == max(row["validation_wga"] for row in found[0])


def test_trackers_hear_of_every_trial_by_a_short_name(ray_local, tmp_path):
    told: dict[str, list] = {"metrics": [], "tried": []}
    tracker = SimpleNamespace(
        metrics=lambda of, step, values: told["metrics"].append((of, sorted(values))),
        tried=lambda of, settings, values: told["tried"].append((of, sorted(values))),
    )
    config, folders = tiny_config("search.trials=2"), write_tiny_run(str(tmp_path))
    given = (*folders.values(), tiny_groups(), str(tmp_path / "work"), Said())
    run_search(config, *given, tracker)
    assert sorted(told["tried"]) == [(f"search/trial-0{n}", ["AGA", "WGA"]) for n in (1, 2)]
    assert {of for of, _ in told["metrics"]} == {"search/trial-01", "search/trial-02"}
    assert not list((tmp_path / "work").rglob("events.out.*")), "sixteen curves of heads"
    names = [path.name for path in (tmp_path / "work" / "tune").glob("trial-*")]
    assert len(names) == 2 and max(map(len, names)) < 30

"""One trial as a process of its own: the peer of benchmarks/search.py.

    python benchmarks/peers/search_trial.py RUN '{"ratio": 0.25, ...}' SEED

Reads the run's Parquet tables, decodes every PNG, trains stage 1 for all its steps, fits the one
head, measures on validation; prints JSON. The training is raysynth's own, as fast as in the search:
what is compared is how trials are run, not how a step is computed.
"""

from __future__ import annotations

import json
import sys
import time

BEGIN = time.perf_counter()


def main() -> None:
    """Train, measure, print."""
    run, parameters, seed = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])

    from dataclasses import replace

    from raysynth.config.files import load_config
    from raysynth.models.threads import use_threads
    from raysynth.networks.build import blueprint_of
    from raysynth.storage import tables
    from raysynth.training.data import load_data
    from raysynth.training.fit import fit
    from raysynth.training.two_stage import plan_of

    use_threads(1)
    marks = {"imports": time.perf_counter() - BEGIN}
    config = load_config(None, [f"seed={seed}"])
    groups = tables.groups_of(tables.read_table(f"{run}/real", ["id"]).schema)
    start = time.perf_counter()
    data = load_data(
        config.classifier.image_size, f"{run}/real", f"{run}/synthetic", f"{run}/selection", groups
    )
    marks["decoding"] = time.perf_counter() - start
    start = time.perf_counter()
    plan = replace(plan_of(parameters, config.classifier), evaluations=1)
    (snapshot,) = fit(plan, data, blueprint_of(config))
    marks["training and head"] = time.perf_counter() - start
    _, metrics = snapshot.best()
    print(json.dumps({"wga": metrics.wga, "aga": metrics.aga, "seconds": marks}))


if __name__ == "__main__":
    main()

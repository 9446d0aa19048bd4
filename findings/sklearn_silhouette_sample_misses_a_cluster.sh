#!/usr/bin/env bash
# scikit-learn's silhouette_score with `sample_size` draws points without looking at their clusters:
# where all drawn points are of one cluster, a valid clustering ends in a ValueError, for some seeds.
#
# Version: scikit-learn 1.9.1. Seen: 66,878 points, 24 of them a cluster of its own, a sample of
# 2,000: 8 of 14 seeds raise "Number of labels is 1", the others give a score.
# Exits non-zero when that changes.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check \
  'scikit-learn==1.9.1' 'numpy==2.4.6'
cat > "$work/try.py" <<'PY'
import sys

import numpy as np
from sklearn.metrics import silhouette_score

rng = np.random.default_rng(0)
points = np.concatenate([rng.normal(1, 1e-3, (66_854, 2)), rng.normal(-1, 1e-3, (24, 2))])
labels = np.repeat([0, 1], [66_854, 24])
raised, scored, said = 0, 0, ""
for seed in range(14):
    try:
        silhouette_score(points, labels, sample_size=2_000, random_state=seed)
        scored += 1
    except ValueError as error:
        raised, said = raised + 1, str(error)
print(f"of 14 seeds {scored} give a score, {raised} raise: {said}")
sys.exit(not (raised and scored))
PY
"$work/venv/bin/python" "$work/try.py"

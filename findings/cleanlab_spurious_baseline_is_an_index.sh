#!/usr/bin/env bash
# Datalab's score of a spurious correlation compares a property's accuracy with that of the most
# common label, but takes `np.bincount(labels).argmax() / len(labels)`: the label's index, not its
# count. So with 90 % of one label a property of pure noise scores 0.1 (0 is worst, 1 is none) and
# is reported; by the formula that is described it would score 1.
#
# Version: cleanlab 2.9.0 (internal/spurious_correlation.py, _get_baseline). Exits non-zero when
# that changes.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check 'cleanlab==2.9.0' pandas
cat > "$work/try.py" <<'PY'
import sys

import numpy as np
import pandas as pd
from cleanlab.datalab.internal.spurious_correlation import SpuriousCorrelations

labels = np.array([0] * 900 + [1] * 100)
noise = pd.DataFrame({"noise": np.random.default_rng(0).random(1000)})
found = SpuriousCorrelations(noise, labels)
score = float(found.calculate_correlations()["score"].iloc[0])
print("baseline", found._get_baseline(), "expected 0.9; score of noise", round(score, 3))
sys.exit(not (found._get_baseline() == 0.0 and score < 0.15))
PY
"$work/venv/bin/python" "$work/try.py"

#!/usr/bin/env bash
# fairlearn's equalized odds difference is 1.0, the worst there is, for predictions without a single
# error, where one sensitive group has no sample of a class: the rate that does not exist counts as 0.
#
# Version: fairlearn 0.15.0 (scikit-learn 1.9.1). Seen: y_true = y_pred, group b without a positive:
# equalized_odds_difference 1.0. Exits non-zero when that changes.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check \
  'fairlearn==0.15.0' 'scikit-learn==1.9.1' 'pandas==3.1.1' 'numpy==2.4.6'
cat > "$work/try.py" <<'PY'
import sys

from fairlearn.metrics import equalized_odds_difference

truth = [1, 0, 1, 0, 0, 0]
group = ["a", "a", "a", "a", "b", "b"]
seen = equalized_odds_difference(truth, truth, sensitive_features=group)
print("no prediction is wrong; equalized odds difference:", seen)
sys.exit(seen != 1.0)
PY
"$work/venv/bin/python" "$work/try.py"

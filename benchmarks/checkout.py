"""Imported first: what lies beside the package in a checkout, `pretraining` and `tests`, is found.

The package is installed without them, and a script's own folder is all that Python looks at.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

"""Makes the tools of the checkout importable."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # so that tests write `from tools.reference import ...`

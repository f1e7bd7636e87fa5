"""Where things are: the checkout, and the cache that outlives it."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("EDGEMODEL_CACHE", Path.home() / ".cache" / "edgemodel"))
BIN = CACHE / "bin"

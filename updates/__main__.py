"""Copier runs this folder with its own Python: only Copier and its dependencies can be imported."""

import sys
from importlib import import_module
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])
raise SystemExit(import_module("updates.steps").main(sys.argv[1]))

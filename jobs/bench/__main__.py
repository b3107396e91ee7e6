"""The entry point of `python jobs/bench`; it works from any folder."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.program import main

main()

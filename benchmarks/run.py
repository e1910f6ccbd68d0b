"""Measures the server: `python benchmarks/run.py --help`."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # Not this folder, where Python looks first: what is here is `benchmarks.something`.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from benchmarks.suite import main

    sys.exit(main())

"""How fast the server is, beside others that do the same: `python benchmarks/run.py`."""

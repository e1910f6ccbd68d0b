"""Other servers that have the same chat, each as fast as its way lets it be.

A Python one is started as `python -m benchmarks.references.NAME [WAY]`. Each listens on a free port
of 127.0.0.1, says its URL on stdout, and serves until it is killed.
"""

"""Benchmarks: figures beside those of others, taken in the same run. Not tests: nothing timed decides a test.

``python -m bench`` runs all and prints a table; each module also runs alone, such as ``python -m bench.throughput``.
"""

"""Benchmarks: each goes in by the door that a user has, proves the final state, and prints samples, median and input.

python -m bench NAME [--json]     one benchmark: a table, or one JSON object
python -m bench                   all of them
"""

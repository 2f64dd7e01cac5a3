"""Speed and memory of braintrace beside BPTT and the PyPI package braintrace: `python -m
benchmarks`, see README.md.
"""

"""The page on migration, row by row.

What it says of the PyPI package's gradients is measured by a program that runs where that package
is installed, from the folder `tests`: `python -m migration.measure`.
"""

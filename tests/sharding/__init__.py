"""Learners on meshes of 8 virtual devices, in processes of their own: the number of devices is
settled when JAX starts.

`PYTHONPATH=tests python -m sharding` measures every rule on every cell and mesh and prints a table;
the tests measure a part of it.
"""

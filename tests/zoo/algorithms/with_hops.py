"""The algorithms whose signal passes from neuron to neuron."""

from .._algorithms import Algorithm

ALGORITHMS = {"mdgl": Algorithm("mdgl", {})}

"""Weight operations as functions: plain JAX, with transforms of the weight, a bias and physical
units.
"""

from ._conv import conv
from ._products import einsum, grouped_matmul, lora_matmul, matmul
from ._sparse import sparse_matmul
from ._tables import element_wise, embedding

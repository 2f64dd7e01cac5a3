"""Weight operations as functions: plain JAX, with transforms of the weight, a bias and physical
units.
"""

from ._conv import conv as conv
from ._products import einsum as einsum
from ._products import grouped_matmul as grouped_matmul
from ._products import lora_matmul as lora_matmul
from ._products import matmul as matmul
from ._sparse import sparse_matmul as sparse_matmul
from ._tables import element_wise as element_wise
from ._tables import embedding as embedding

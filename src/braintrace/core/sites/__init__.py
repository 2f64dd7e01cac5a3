"""Site rules: how each weight operation lays out its eligibility trace. One file an operation, and
a registry.
"""

from . import _conv, _dot_general, _gather, _sparse_formats  # noqa: F401  (each registers its rule)
from ._chain import chain_rule as chain_rule
from ._elementwise import OperandRule as OperandRule
from ._elementwise import ScaleRule as ScaleRule
from ._rule import SiteRule as SiteRule
from ._rule import has_site_rule as has_site_rule
from ._rule import register_site_rule as register_site_rule
from ._rule import site_rule as site_rule
from ._rule import sum_steps as sum_steps
from ._sparse import SparseRule as SparseRule

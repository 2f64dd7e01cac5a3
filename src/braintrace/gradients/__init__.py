"""A learner's gradients beside those of BPTT: the reference, the comparison and its report.

`braintrace.checks` gives these names out to users, with oracles and assertions.
"""

from ._bptt import Gradients as Gradients
from ._bptt import bptt_gradient as bptt_gradient
from ._bptt import gradient_of as gradient_of
from ._check import check_gradients as check_gradients
from ._check import inner_dtypes as inner_dtypes
from ._check import judge as judge
from ._check import window_choice as window_choice
from ._report import GradientReport as GradientReport
from ._report import GradientRow as GradientRow
from ._report import checked_tolerance as checked_tolerance
from ._report import compare_gradients as compare_gradients

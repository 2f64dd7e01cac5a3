"""Is the gradient right? References, reports and assertions for models, learners and site rules.

report = learner.check_gradients(params, state, xs, ys, loss_fn=loss)
print(report)                                                         # a row per parameter
assert_gradients_exact(learner, params, state, xs, ys, loss_fn=loss)  # in your own tests
"""

from ._assertions import assert_gradients_exact as assert_gradients_exact
from ._assertions import assert_gradients_match as assert_gradients_match
from ._assertions import assert_not_dead as assert_not_dead
from ._gradient_report import GradientReport as GradientReport
from ._gradient_report import GradientRow as GradientRow
from ._gradient_report import compare_gradients as compare_gradients
from ._gradients import check_gradients as check_gradients
from ._oracles_cell import Layer as Layer
from ._oracles_cell import LayeredCell as LayeredCell
from ._oracles_filtered import otpe_oracle as otpe_oracle
from ._oracles_filtered import ottt_oracle as ottt_oracle
from ._oracles_filtered import pp_prop_oracle as pp_prop_oracle
from ._oracles_layered import eprop_oracle as eprop_oracle
from ._oracles_layered import layered_oracle as layered_oracle
from ._oracles_layered import osttp_oracle as osttp_oracle
from ._oracles_masked import random_rtrl_oracle as random_rtrl_oracle
from ._oracles_masked import snap_oracle as snap_oracle
from ._reference import bptt_gradient as bptt_gradient
from ._reference import d_rtrl_oracle as d_rtrl_oracle
from ._site_rules import check_site_rule as check_site_rule

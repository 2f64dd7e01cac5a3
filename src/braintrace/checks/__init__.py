"""Is the gradient right? References, reports and assertions for models, learners and site rules.

report = learner.check_gradients(params, state, xs, ys, loss_fn=loss)
print(report)                                                         # a row per parameter
assert_gradients_exact(learner, params, state, xs, ys, loss_fn=loss)  # in your own tests
"""

from ..gradients import GradientReport as GradientReport
from ..gradients import GradientRow as GradientRow
from ..gradients import bptt_gradient as bptt_gradient
from ..gradients import check_gradients as check_gradients
from ..gradients import compare_gradients as compare_gradients
from ._assertions import assert_gradients_exact as assert_gradients_exact
from ._assertions import assert_gradients_match as assert_gradients_match
from ._assertions import assert_not_dead as assert_not_dead
from ._cells import CellExample as CellExample
from ._cells import default_cells as default_cells
from ._check_rule import check_rule as check_rule
from ._oracles_cell import Layer as Layer
from ._oracles_cell import LayeredCell as LayeredCell
from ._oracles_filtered import otpe_oracle as otpe_oracle
from ._oracles_filtered import ottt_oracle as ottt_oracle
from ._oracles_filtered import pp_prop_oracle as pp_prop_oracle
from ._oracles_instantaneous import dni_oracle as dni_oracle
from ._oracles_instantaneous import instantaneous_oracle as instantaneous_oracle
from ._oracles_kronecker import kf_rtrl_oracle as kf_rtrl_oracle
from ._oracles_kronecker import ok_rtrl_oracle as ok_rtrl_oracle
from ._oracles_layered import eprop_oracle as eprop_oracle
from ._oracles_layered import layered_oracle as layered_oracle
from ._oracles_layered import osttp_oracle as osttp_oracle
from ._oracles_masked import random_rtrl_oracle as random_rtrl_oracle
from ._oracles_masked import snap_oracle as snap_oracle
from ._oracles_modulated import mdgl_oracle as mdgl_oracle
from ._oracles_modulated import modprop_oracle as modprop_oracle
from ._oracles_random import drawn_signs as drawn_signs
from ._oracles_random import uoro_oracle as uoro_oracle
from ._oracles_signals import decolle_oracle as decolle_oracle
from ._oracles_signals import etlp_oracle as etlp_oracle
from ._oracles_signals import three_factor_oracle as three_factor_oracle
from ._oracles_sketched import sk_rtrl_oracle as sk_rtrl_oracle
from ._oracles_slopes import s_tllr_oracle as s_tllr_oracle
from ._reference import d_rtrl_oracle as d_rtrl_oracle
from ._rule_report import LawRow as LawRow
from ._rule_report import RuleReport as RuleReport
from ._site_rules import check_site_rule as check_site_rule

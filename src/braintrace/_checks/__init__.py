"""References, reports and assertions; `braintrace.checks` is their public name."""

from ._assertions import assert_gradients_exact as assert_gradients_exact
from ._assertions import assert_gradients_match as assert_gradients_match
from ._assertions import assert_not_dead as assert_not_dead
from ._gradients import Learner as Learner
from ._gradients import check_gradients as check_gradients
from ._reference import bptt_gradient as bptt_gradient
from ._reference import d_rtrl_oracle as d_rtrl_oracle
from ._report import GradientReport as GradientReport
from ._report import GradientRow as GradientRow
from ._report import compare_gradients as compare_gradients
from ._site_rules import check_site_rule as check_site_rule

"""Whatever public calls are given, they say what is wrong, and leave everything as it was."""

import collections
import warnings

import pytest

import braintrace
from precision import precision

from ._outcomes import Case, Outcome

with precision(32):  # the values of the tables are those of JAX's default
    from ._table import all_cases, table

pytestmark = pytest.mark.usefixtures("single_precision_throughout")

#: The cases by what is called, so that one test runs those of one front end or room.
BY_SUBJECT = collections.defaultdict(list)
with precision(32):
    for _case in all_cases():
        BY_SUBJECT[_case.subject].append(_case)
#: At least so many calls must have a clear error.
MANY = 3000
found: list[tuple[Case, Outcome, str]] = []


@pytest.mark.parametrize("subject", BY_SUBJECT)
def test_bad_calls(subject):
    outcomes = [(case, *case.run()) for case in BY_SUBJECT[subject]]
    found.extend(outcomes)
    wrong = [f"{o}: {case.name}\n{text}" for case, o, text in outcomes if o != case.expected]
    assert not wrong, "\n".join([f"{len(wrong)} of {len(outcomes)} calls", *wrong])


def test_the_table_is_whole():
    """Every case has a name of its own, and there are many."""
    names = [case.name for cases in BY_SUBJECT.values() for case in cases]
    assert len(names) == len(set(names))
    expected = collections.Counter(c.expected for cases in BY_SUBJECT.values() for c in cases)
    assert expected[Outcome.CLEAR] >= MANY, expected
    assert set(expected) == {Outcome.CLEAR, Outcome.RIGHT, Outcome.REFUSED}


def test_the_table_is_shown():
    case = next(iter(BY_SUBJECT.values()))[0]
    shown = table([(case, Outcome.CLEAR, ""), (case, Outcome.RAW, "")])
    assert [line.split() for line in shown.splitlines()] == [
        ["clear", "1"],
        ["right", "0"],
        ["refused", "0"],
        ["raw", "1"],
        ["wrong", "0"],
        ["calls", "2"],
    ]


# Controls: each kind of fault is found
# --------------------------------------------------------------------------------------------------


def test_a_raw_error_is_found():
    case = Case("raw", lambda: 1 / 0)
    assert case.run() == (Outcome.RAW, "ZeroDivisionError: division by zero")


def test_half_an_error_is_found():
    def call():
        raise braintrace.UsageError("Invalid.", expected="something")

    assert Case("half", call).run()[0] is Outcome.RAW


def test_what_is_accepted_is_found():
    assert Case("accepted", lambda: 1).run() == (Outcome.WRONG, "accepted")
    assert Case("wrong", lambda: 1, right=lambda got: got == 2).run()[0] is Outcome.WRONG
    assert Case("right", lambda: 1, right=lambda got: got == 1).run()[0] is Outcome.RIGHT


def test_a_change_of_state_is_found():
    state = [0.0]

    def call():
        state[0] += 1
        raise braintrace.UsageError("Invalid.", got="x", expected="y")

    assert Case("changed", call, lambda: state).run()[0] is Outcome.WRONG


def test_a_warning_is_found():
    assert Case("warned", lambda: warnings.warn("late", stacklevel=1)).run()[0] is Outcome.RAW

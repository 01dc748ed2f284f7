"""`bench.table`: ratios, verdicts and how they are printed."""

from __future__ import annotations

import pytest

from bench.pick_up import percentile
from bench.table import HEADING, Goal, Group, Row, best_of, number, ratios, spread

TWICE = Goal(2, is_least=True)
AT_MOST_1_MS = Goal(1.0, is_least=False, of_ratio=False, unit=" ms")


def test_a_ratio_is_of_figures_of_the_same_round() -> None:
    """The medians, 20 and 20, would say 1: round by round it is twice as much, but for one
    disturbed round.
    """
    row = Row("key", "name", ours=[20, 40, 10], theirs=[10, 20, 40], goal=TWICE)
    assert row.ratios == [2, 2, 0.25]
    assert row.ratio == 2
    assert row.verdict == "held"


def test_rounds_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        ratios([1, 2], [1])


@pytest.mark.parametrize(
    ("goal", "ours", "theirs", "verdict"),
    [
        (TWICE, [200], [100], "held"),
        (TWICE, [199], [100], "missed"),
        (Goal(0.42, is_least=False), [42], [100], "held"),
        (Goal(0.42, is_least=False), [43], [100], "missed"),
        (AT_MOST_1_MS, [1.0], [], "held"),
        (AT_MOST_1_MS, [1.01], [5], "missed"),
        (AT_MOST_1_MS, [1.004], [], "held"),
        (TWICE, [200], [], "not measured"),
        (TWICE, [], [], "not measured"),
        (None, [], [], "not measured"),
        (None, [1], [2], ""),
    ],
)
def test_the_verdict(
    goal: Goal | None, ours: list[float], theirs: list[float], verdict: str
) -> None:
    assert Row("key", "name", ours, theirs, goal).verdict == verdict


def test_a_goal_says_what_it_is_about() -> None:
    assert str(TWICE) == "≥ 2x"
    assert str(Goal(0.42, is_least=False)) == "≤ 0.42x"
    assert str(AT_MOST_1_MS) == "≤ 1 ms"


def test_a_row_stands_below_its_heading() -> None:
    row = Row(
        "key", "no-op", [30_000, 40_000], [10_000, 20_000], TWICE, floor="~4x", instructions=250_909
    )
    printed = str(Group("drain", [row], ["a note"])).splitlines()
    assert printed[0] == "drain"
    assert printed[1].split() == [
        *("no-op", "35,000", "15,000", "2.50", "(2.00-3.00)", "≥", "2x", "~4x", "held", "251"),
    ]
    assert printed[2] == "    a note"
    for title, figure in (
        ("Corral", "35,000"),
        ("peer", "15,000"),
        ("goal", "≥ 2x"),
        ("k instr/job", "251"),
    ):
        assert HEADING.index(title) + len(title) == printed[1].index(figure) + len(figure)
    for title, text in (("ratio", "2.50"), ("floor", "~4x"), ("verdict", "held")):
        assert HEADING.index(title) == printed[1].index(text)


def test_a_row_without_figures_says_why() -> None:
    printed = str(Row("key", "no-op", goal=TWICE, note="libjemalloc2 is not installed"))
    assert printed.split() == [
        *("no-op", "≥", "2x", "not", "measured"),
        *("(libjemalloc2", "is", "not", "installed)"),
    ]


def test_numbers_have_three_digits_or_all_before_the_point() -> None:
    assert [number(each) for each in (None, 0.123, 19.99, 20.04, 999.4, 12_345.6)] == [
        *("", "0.12", "19.99", "20.0", "999.4", "12,346"),
    ]
    assert spread([]) == ""
    assert spread([3, 1, 2]) == "2.00 (1.00-3.00)"


def test_the_best_has_the_highest_median() -> None:
    assert best_of({"steady": [5, 5, 5], "lucky": [1, 2, 99]}) == "steady"


def test_a_percentile_is_a_figure_that_was_taken() -> None:
    taken = [float(each) for each in range(100, 0, -1)]
    assert (percentile(taken, 50), percentile(taken, 99)) == (50, 99)
    assert percentile([7.0], 99) == 7

"""Two faults in one run: every pair of thirteen faults, at every pair of requests that are near each other.

``OQ_FAULTS=all`` takes all scenarios and requests further apart; that takes an hour.
"""

from __future__ import annotations

import os

import pytest
from faults.cases import run_all_pairs
from faults.scenarios import SCENARIOS

IS_LONG = os.environ.get("OQ_FAULTS") == "all"
SHORT = {"submit": 6, "claim and complete": 2, "idempotent submit": 1, "tracked loop": 2}
LATE = {"claim and complete": 2, "retry": 1}  # with lease entries that come late


@pytest.mark.timeout(3600 if IS_LONG else 900)
@pytest.mark.parametrize("scenario", SCENARIOS if IS_LONG else SHORT)
def test_any_two_requests_may_fail(scenario, cases):
    counts, found = run_all_pairs(scenario, reach=12 if IS_LONG else SHORT[scenario])
    cases("pairs of faults", counts)
    assert not found, "\n".join(found[:20])
    assert sum(counts.values()) >= 500


@pytest.mark.timeout(900)
@pytest.mark.parametrize("scenario", LATE)
def test_any_two_requests_may_fail_where_short_tasks_have_no_lease_entry(scenario, cases):
    counts, found = run_all_pairs(scenario, reach=LATE[scenario], entries="late")
    cases("pairs of faults, late lease entries", counts)
    assert not found, "\n".join(found[:20])
    assert sum(counts.values()) >= 500

"""The number of cases that ran, printed at the end of a test run; with several processes, too."""

from __future__ import annotations

from collections import Counter

import pytest


@pytest.fixture
def cases(record_property):
    """Count cases: ``cases("single", {"outage": 12})``."""

    def count(sort: str, numbers: dict[str, int]) -> None:
        record_property("cases", (sort, dict(numbers)))

    return count


def pytest_terminal_summary(terminalreporter):
    counted: dict[str, Counter[str]] = {}
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for name, value in report.user_properties:
            if name == "cases":
                counted.setdefault(value[0], Counter()).update(value[1])
    for sort, numbers in counted.items():
        terminalreporter.section(f"{sort}: {sum(numbers.values()):,} cases", sep="-")
        for name, number in numbers.most_common():
            terminalreporter.line(f"{number:7,}  {name}")

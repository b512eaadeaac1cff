"""The number of cases that ran, printed at the end of a test run. For the conftest of each folder that counts."""

from __future__ import annotations

from collections import Counter

import pytest

#: What ran, by sort of test.
CASES: dict[str, Counter[str]] = {}


@pytest.fixture
def cases():
    """Count cases: ``cases("single", {"outage": 12})``."""

    def count(sort: str, numbers: dict[str, int]) -> None:
        CASES.setdefault(sort, Counter()).update(numbers)

    return count


def pytest_terminal_summary(terminalreporter):
    for sort, numbers in CASES.items():
        terminalreporter.section(f"{sort}: {sum(numbers.values()):,} cases", sep="-")
        for name, number in numbers.most_common():
            terminalreporter.line(f"{number:7,}  {name}")
    CASES.clear()  # the hook is there once for each conftest that imports it

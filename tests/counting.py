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


@pytest.fixture
def table(record_property):
    """Count cases by two things: ``table("single", {("outage", "GET tasks/"): 12})``."""

    def count(sort: str, numbers: dict[tuple[str, str], int]) -> None:
        record_property("table", (sort, [(*key, number) for key, number in numbers.items()]))

    return count


def _print_tables(terminalreporter) -> None:
    tables: dict[str, Counter[tuple[str, str]]] = {}
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for name, value in report.user_properties:
            if name == "table":
                counted = tables.setdefault(value[0], Counter())
                for row, column, number in value[1]:
                    counted[row, column] += number
    for sort, counted in tables.items():
        terminalreporter.section(f"{sort}: {sum(counted.values()):,} cases", sep="-")
        columns = sorted({column for _, column in counted if column})
        rows = list(dict.fromkeys(row for row, _ in counted))
        width = max(map(len, rows))
        parts = [column.rstrip("/").split(" ") for column in columns]
        for line in range(2):
            names = "".join(f"{part[line]:>9.9}" for part in parts)
            terminalreporter.line(f"{'':{width}}  {names}{'all' if line else '':>9}")
        for row in sorted(rows):
            numbers = "".join(f"{counted[row, column] or '':>9}" for column in columns)
            whole = sum(number for (name, _), number in counted.items() if name == row)
            terminalreporter.line(f"{row:{width}}  {numbers}{whole:>9,}")


def pytest_terminal_summary(terminalreporter):
    _print_tables(terminalreporter)
    counted: dict[str, Counter[str]] = {}
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for name, value in report.user_properties:
            if name == "cases":
                counted.setdefault(value[0], Counter()).update(value[1])
    for sort, numbers in counted.items():
        terminalreporter.section(f"{sort}: {sum(numbers.values()):,} cases", sep="-")
        for name, number in numbers.most_common():
            terminalreporter.line(f"{number:7,}  {name}")

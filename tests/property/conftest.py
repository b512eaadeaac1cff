"""The property tests count their cases as the fault tests do."""

from faults.counting import cases, pytest_terminal_summary

__all__ = ["cases", "pytest_terminal_summary"]

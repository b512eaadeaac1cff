"""Fixtures of the fault tests."""

from faults.counting import cases, pytest_terminal_summary

__all__ = ["cases", "pytest_terminal_summary"]

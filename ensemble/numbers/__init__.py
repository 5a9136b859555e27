"""Combining, fitting, scoring and drawing predictions that are numbers."""

"""Combining, scoring, keeping and drawing predictions that are maps."""

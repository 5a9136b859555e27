"""Combining, scoring, keeping and drawing predictions that are probabilities of classes."""

"""Combinations of members: which there are, how they compare, and choosing among them."""

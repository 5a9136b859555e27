"""The rows of the tables, read and checked. No torch."""

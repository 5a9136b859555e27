"""The code that a user hands over: found, packed for other machines, its options, and what it returns."""

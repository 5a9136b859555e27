"""Everything a run may be told: typed sections, named recipes, members, and overrides of single fields."""

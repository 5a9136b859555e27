"""The Ray cluster that a run trains on: starting or joining it, its nodes, versions and resources."""

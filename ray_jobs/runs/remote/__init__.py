"""A run on object storage: its objects, the lease of its driver, and folders that are kept equal to the objects."""

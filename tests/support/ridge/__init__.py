"""The smallest second family: ridge regression of log1p of the target on the numbers of a table. Tests put this folder
among the families of a copy of the project, or of their own process."""

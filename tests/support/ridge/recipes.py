from trainers.families import Recipe
from trainers.ridge.config import Config


def ridge() -> Recipe:
    """Ridge regression."""
    return Recipe(Config())


RECIPES = (ridge,)
SMALLEST = "ridge"

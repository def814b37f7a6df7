"""The recipe: one YAML file, one frozen model, dotted overrides, every fault reported at once.

recipes/demo.yaml + overrides ──▶ load_recipe ──▶ Recipe ──▶ saved beside each output, logged to MLflow
"""

from qwen_core.config.load import bundled_recipes, dump_recipe, load_recipe
from qwen_core.config.recipe import Recipe

__all__ = ["Recipe", "bundled_recipes", "dump_recipe", "load_recipe"]

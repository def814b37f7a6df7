"""`{date}` in `ingest.inputs`: the day that a scheduled or backfilled run stands for."""

from __future__ import annotations

import datetime

from qwen_core.config import Recipe
from qwen_core.errors import RecipeError

_MARK = "{date}"


def with_date(recipe: Recipe, date: str | None) -> Recipe:
    """Put a date into the inputs.

    Args:
        recipe: Whose `ingest.inputs` may hold `{date}`.
        date: Such as `2026-01-31`; what follows, as in a timestamp, is left out. `None` where there is no date.

    Returns:
        The recipe with that day's inputs; the same one where no input has the mark.

    Raises:
        RecipeError: The mark is there and no date is given, or the date is none.
    """
    inputs = recipe.ingest.inputs
    if not any(_MARK in name for name in inputs):
        return recipe
    if not date:
        named = ", ".join(name for name in inputs if _MARK in name)
        raise RecipeError(f"ingest.inputs has {named}, but this run stands for no date: give --date YYYY-MM-DD")
    try:
        day = datetime.date.fromisoformat(date[:10]).isoformat()
    except ValueError as error:
        raise RecipeError(f"--date {date} is no date: write it as YYYY-MM-DD, such as 2026-01-31") from error
    ingest = recipe.ingest.model_copy(update={"inputs": tuple(name.replace(_MARK, day) for name in inputs)})
    return recipe.model_copy(update={"ingest": ingest})

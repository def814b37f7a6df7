"""What all recipe sections have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Ratio = Annotated[float, Field(ge=0.0, le=1.0)]
"""A share between 0 and 1."""

Count = Annotated[int, Field(ge=1)]
"""A whole number of at least one."""


class Section(BaseModel):
    """A frozen section of a recipe; unknown keys are errors, and defaults are checked like given values."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, protected_namespaces=())

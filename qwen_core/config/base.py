"""What all recipe sections have in common."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

Ratio = Annotated[float, Field(ge=0.0, le=1.0)]
"""A share between 0 and 1."""

Count = Annotated[int, Field(ge=1)]
"""A whole number of at least one."""


class Section(BaseModel):
    """A frozen section of a recipe; unknown keys are errors, and defaults are checked like given values."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, protected_namespaces=())

    neutral: ClassVar[frozenset[str]] = frozenset()
    """Keys that decide how the work is done or watched, but not what it makes: no part of a fingerprint, so that a
    stage that is run again with other values goes on from where it stopped."""

    later: ClassVar[frozenset[str]] = frozenset()
    """Keys that came after the first release: left out of a fingerprint while they have their default, under which the
    stage makes what it made before."""

    def shaping(self) -> dict[str, Any]:
        """Take the keys that shape a result, those of nested sections too.

        Returns:
            Plain JSON.
        """
        return self.model_dump(mode="json", exclude=self._left_out())

    def _left_out(self) -> dict[str, Any]:
        """Name the neutral keys of this section and of those in it, as pydantic's `exclude` wants them."""
        fields = type(self).model_fields
        unused = [name for name in self.later if getattr(self, name) == fields[name].default]
        left_out: dict[str, Any] = dict.fromkeys([*self.neutral, *unused], True)
        for name in fields:
            value = getattr(self, name)
            if isinstance(value, Section) and name not in left_out and (inner := value._left_out()):
                left_out[name] = inner
        return left_out

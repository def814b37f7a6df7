"""Quality rules: documents in, for each one stable reason to drop it, or none. docs/data.md lists them."""

from qwen_core.data.rules.judge import Verdict, judge

__all__ = ["Verdict", "judge"]

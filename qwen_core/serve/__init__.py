"""An OpenAI-compatible server for trying a model: one model, one request at a time."""

from qwen_core.serve.app import make_app

__all__ = ["make_app"]

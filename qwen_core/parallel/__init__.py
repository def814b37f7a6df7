"""How a model is spread over workers: DeepSpeed ZeRO."""

from qwen_core.parallel.zero import gather_state, make_engine

__all__ = ["gather_state", "make_engine"]

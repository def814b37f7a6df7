"""How a model is spread over workers: DeepSpeed ZeRO, or pipeline x tensor x data."""

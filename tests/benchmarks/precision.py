"""In which precision the training benchmarks compute: apart from `measure`, for those of data load no torch."""

from __future__ import annotations

import torch

from qwen_core.train.worker import cpu_computes_bf16

PRECISION = "bf16" if cpu_computes_bf16() else "fp32"
"""The one that this machine's CPU has instructions for."""
DTYPE = torch.bfloat16 if PRECISION == "bf16" else torch.float32

"""`python -m tests.benchmarks [NAME...]`."""

import importlib
import sys

NAMES = (
    "extract",
    "language",
    "rules",
    "minhash",
    "dedup",
    "curate",
    "toxicity",
    "pack",
    "decoder",
    "training",
    "sft",
    "checkpoint",
)

if __name__ == "__main__":
    wanted = sys.argv[1:] or NAMES
    unknown = [name for name in wanted if name not in NAMES]
    if unknown:
        sys.exit(f"no benchmark {', '.join(unknown)}; there are: {', '.join(NAMES)}")
    for name in wanted:
        importlib.import_module(f"tests.benchmarks.{name}").main()

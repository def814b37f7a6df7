"""Speed beside a peer from PyPI, in one run: `make bench`, or `python -m tests.benchmarks minhash`."""

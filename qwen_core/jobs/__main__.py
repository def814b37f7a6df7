"""The command of a Ray job: `python -m qwen_core.jobs STAGE ...`."""

import sys

from qwen_core.jobs.runner import main

if __name__ == "__main__":
    sys.exit(main())

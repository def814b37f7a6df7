"""`python -m qwen_core.platform HOME` is the watcher; `qwen-core up` starts it."""

import sys

from qwen_core.platform.watcher import main

main(sys.argv[1:])

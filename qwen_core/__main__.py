"""`python -m qwen_core`: the command line, for where the script is not on the path."""

from qwen_core.cli import main

main()

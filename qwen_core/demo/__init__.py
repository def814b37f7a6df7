"""What the demo brings along: bundled texts, and a reader of the Python environment that it runs in."""

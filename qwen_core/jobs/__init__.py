"""One thin entry point for each stage; the home of Ray."""

"""Documents and pure batch transforms over Arrow; no Ray, no torch."""

"""What several rooms share: evidence and how it becomes an LLR, calibrations, and the base of all errors."""

"""What `stages.evaluate` measures: the cases, and the distances to real videos."""

"""Parts of `stages.evaluate`: the cases, and the distances to real videos."""

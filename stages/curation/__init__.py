"""Parts of the stage `clips` that need the whole split."""

"""Where raw videos come from: `listing` knows the sources, `storage` knows local folders and remote storage.

`known` remembers which local files were read before.
"""

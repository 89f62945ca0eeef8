"""The picture world: photographs and cut-outs from packages that anyone can fetch, and scenes made of them."""

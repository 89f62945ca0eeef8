"""MLflow's registry: which version serves, and why.

versions    versions of the model, the alias, its history and its hold
challenge   champion against challenger on the evaluation's test pictures
explain     the decision on a version, replayed from what was logged
release     the command `image-conductor release`
"""

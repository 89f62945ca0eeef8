"""Parts of `stages.evaluate`:

cases      pictures with trajectories, and test clips with their own tracks
jobs       sample and measure batches of cases, each kept as a file
finished   the file of a job
pipeline   the networks that jobs use
distances  Frechet distances to real clips
real       features of real clips
"""

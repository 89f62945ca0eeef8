"""What the three training stages share (Sec 2.4):

launch      start on one process or several
loop        the training loop
items       curated clips as training items
validation  motion error of validation clips during training
stopping    the end on SIGTERM, and the times of checkpoints
checkpoint  the state of a run on disk
start       weights to begin with
"""

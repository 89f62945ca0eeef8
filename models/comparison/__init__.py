"""Comparison with other methods, from folders of videos (Sec 3, Table 1):

videos       folders of videos by any method, with their trajectories
wanted       what strokes ask of a video, and how it is followed
score        the evaluation's figures for them
study        a page that asks people which of two videos they prefer
preferences  the result of the votes
"""

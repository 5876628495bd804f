"""Trajectories, training and fusing."""

"""Files in and out: structures and force fields, trajectories."""

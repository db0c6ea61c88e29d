"""A small synthetic world: clips of one subject over one place, with the truth of each clip and sentences about it."""

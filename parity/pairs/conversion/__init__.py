"""Checkpoints of one side's model turned into the other's."""

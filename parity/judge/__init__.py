"""Verdicts on the subjects' computations, against the truth and against themselves."""

"""A training: where it is, what it reports, what it keeps."""

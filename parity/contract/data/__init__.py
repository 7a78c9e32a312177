"""The data sets and images, as files and as numbers."""

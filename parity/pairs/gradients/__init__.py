"""Gradients in float64, region by region."""

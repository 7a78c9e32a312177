"""Pairs to prove: `parity prove parity.examples.simple_cnn`."""

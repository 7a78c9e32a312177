"""Pairs to prove: `parity prove parity.pairs.examples.simple_cnn`."""

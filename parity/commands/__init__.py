"""The commands of `parity`, a module each."""

"""The command lines of the backends, and what all command lines share."""

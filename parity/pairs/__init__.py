"""Any pair that a user brings: what is captured, mapped and compared, and which mistake it is."""

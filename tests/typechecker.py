"""The checks of shapes and types that are enforced while testing."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
"""As beartype does by itself, but an int will do for a float, as for every type checker."""

"""Any pair that a user brings: what is captured, mapped and compared, and which mistake it is."""


def is_tool(file: str) -> bool:
    """Whether code is what proves pairs, and no example of one."""
    return "/parity/pairs/" in file and "/parity/pairs/examples/" not in file

"""With which other processes a training runs, as the command lines say it."""

from dataclasses import dataclass

from parity.contract.errors import RecipeError
from parity.contract.recipe import require_integer


@dataclass(frozen=True, kw_only=True)
class Processes:
    """How many processes train together, which of them this is, and where they meet.

    Raises:
        RecipeError: a field has a value that is not allowed, or does not go with the others.
    """

    coordinator: str | None = None
    """HOST:PORT where process 0, which runs on HOST, waits for the others."""
    processes: int | None = None
    """Processes that train together. Without --coordinator: as torchrun says, or jax.distributed
    (Slurm, TPU pods)."""
    process_id: int | None = None
    """Which of them this is, from 0; process 0 reports and saves."""
    devices: int | None = None
    """Devices of each process, in JAX. Default: one; of several processes, all that each has."""
    wait: int = 120
    """Seconds to wait for the other processes."""

    def __post_init__(self) -> None:
        for name, least in (("processes", 1), ("process_id", 0), ("devices", 1), ("wait", 1)):
            value = getattr(self, name)
            if value is not None:
                require_integer(name, value, at_least=least)
        if self.coordinator is None:
            if self.process_id is not None:
                raise RecipeError("process_id needs coordinator, HOST:PORT, where they meet")
            return
        if self.processes is None or self.process_id is None:
            raise RecipeError("coordinator needs processes and process_id besides")
        if self.process_id >= self.processes:
            raise RecipeError(
                f"process_id must be below processes, {self.processes}, got {self.process_id}"
            )
        host, _, port = self.coordinator.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise RecipeError(
                f"coordinator must be HOST:PORT with a port below 65536, got {self.coordinator!r}"
            )

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the coordinator."""
        host, _, port = (self.coordinator or "").rpartition(":")
        return host.strip("[]"), int(port)

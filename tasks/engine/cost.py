"""What a stage took: seconds, and the most memory that was in use."""

import time
from pathlib import Path

OWN = Path("/proc/self")
"""What the kernel tells a process of itself, where there is such a folder; psutil cannot let the peak begin anew."""
MIB = 2**20
PEAK = "cost/peak_mib"


class Meter:
    """Measures from its making on.

    On a GPU the memory is what torch took there. On a CPU it is that of the whole process, so stages that run beside each
    other in threads share one figure; it is missing where the kernel does not tell it.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._began = time.time()
        if self._on_gpu:
            import torch

            torch.cuda.reset_peak_memory_stats(device)
        self._known = self._on_gpu or _forget_peak()

    @property
    def _on_gpu(self) -> bool:
        return self._device.startswith("cuda")

    def read(self) -> dict[str, float]:
        """Seconds since the making, and the peak in MiB where it is known."""
        found = {"cost/seconds": time.time() - self._began}
        if self._on_gpu:
            import torch

            found[PEAK] = torch.cuda.max_memory_allocated(self._device) / MIB
        elif self._known and (peak := _peak_kib()) is not None:
            found[PEAK] = peak / 1024
        return found


def _forget_peak() -> bool:
    """Let the kernel's high-water mark begin anew; whether it does."""
    try:
        (OWN / "clear_refs").write_text("5", encoding="utf-8")
    except OSError:
        return False
    return True


def _peak_kib() -> int | None:
    try:
        lines = (OWN / "status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)

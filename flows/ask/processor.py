"""What this processor multiplies fastest, and what follows for a run on it."""

from pathlib import Path

from tasks.engine.config import RuntimeConfig

CPUINFO = Path("/proc/cpuinfo")
"""Where Linux lists what a processor can do; psutil does not."""
UNITS = ("amx_bf16", "avx512_bf16", "bf16")
"""As Linux names them, on x86 and ARM, fastest first."""
WORTHWHILE = 10_000_000
"""Parameters below which a step is mostly other work than products."""


def bf16_units() -> str | None:
    """Name of the units that multiply bf16, or None where there are none or the system does not list them."""
    if not CPUINFO.is_file():
        return None
    lines = CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    flags = {flag for line in lines if line.startswith(("flags", "Features")) for flag in line.split(":", 1)[1].split()}
    return next((unit for unit in UNITS if unit in flags), None)


def advice(runtime: RuntimeConfig, parameters: int) -> str | None:
    """One line about the precision of a run on this processor; None where there is nothing to gain.

    Args:
        runtime: of the run.
        parameters: of the policy.
    """
    units = bf16_units()
    if runtime.device != "cpu" or units is None:
        return None
    if runtime.precision == "bf16":
        return f"this processor multiplies bf16 ({units}), and the run uses it"
    if parameters < WORTHWHILE:
        return None
    return f"this processor multiplies bf16 ({units}): runtime.precision=bf16 is advised for {parameters:,} parameters"

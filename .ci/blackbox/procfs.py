"""What Linux says of a process: memory, open descriptors, processor time."""

import os
from pathlib import Path

MIB = 1024 * 1024
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class Usage:
    """Of one process, by its id."""

    def __init__(self, process_id):
        self._directory = Path(f"/proc/{process_id}")

    def rss_mib(self):
        return self._status("VmRSS:") / 1024

    def peak_rss_mib(self):
        """The largest since the last `forget_peak`."""
        return self._status("VmHWM:") / 1024

    def forget_peak(self):
        (self._directory / "clear_refs").write_text("5")

    def descriptors(self):
        return len(os.listdir(self._directory / "fd"))

    def cpu_seconds(self):
        """User and system time of all its threads."""
        # The name of the program is in parentheses and may hold spaces.
        fields = (self._directory / "stat").read_text().rpartition(") ")[2].split()
        user, system = int(fields[11]), int(fields[12])
        return (user + system) / TICKS_PER_SECOND

    def _status(self, name):
        for line in (self._directory / "status").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1])
        raise OSError(f"{self._directory} has no {name}")

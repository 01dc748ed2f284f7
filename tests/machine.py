"""`slowness`: how fast this machine is just now, for bounds on work that is done rather than waited
for.
"""

from __future__ import annotations

import time
from typing import Final

LOOP: Final = 500_000
USUAL_SECONDS: Final = 0.025
"""What `LOOP` additions take where the bounds of these tests were set."""


def slowness() -> float:
    """How many times longer than usual this machine takes for the same work, from 1 up.

    A shared machine may be held back to a fraction of its speed for minutes, and CPU time is then
    counted as if it had worked all along. A bound on work is multiplied by this; one on waiting (a
    timeout, a deadline) is not.
    """
    took = []
    for _ in range(3):
        began = time.perf_counter()
        for _ in range(LOOP):
            pass
        took.append(time.perf_counter() - began)
    return max(1.0, min(took) / USUAL_SECONDS)

"""`/audit`: who changed what, the newest first."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from corral.board.desk import Desk
from corral.board.exchange import Page, Refused, Request
from corral.veil import Veil

__all__ = ["show"]

PAGE: Final = 50
ENTRY: Final = re.compile(r"\d{1,20}-\d{1,20}")


async def show(request: Request, desk: Desk) -> Page:
    """The audit log, `PAGE` entries a page; one read of the log, bounded by ten times as many entries."""
    before = request.query.get("before") or None
    if before is not None and not ENTRY.fullmatch(before):
        raise Refused(400, "a page of the audit log ends before one of its entries")
    read = await desk.inspector.audit.read(limit=PAGE, before_id=before)
    veil = Veil()  # whoever writes into the store may have written here, too
    entries = [replace(each, before=veil.value(each.before), after=veil.value(each.after)) for each in read]
    more = entries[-1].id if len(entries) == PAGE else None
    return Page("audit", "Audit log", {"entries": entries, "more": more, "now": desk.now})

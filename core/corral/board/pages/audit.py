"""`/audit`: who changed what, the newest first."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from corral.board.context import BoardContext
from corral.board.messages import Page, Refused, Request
from corral.redactor import Redactor

__all__ = ["show"]

PAGE: Final = 50
ENTRY: Final = re.compile(r"\d{1,20}-\d{1,20}")


async def show(request: Request, context: BoardContext) -> Page:
    """The audit log, `PAGE` entries a page; one read of the log, bounded by ten times as many
    entries.
    """
    before = request.query.get("before") or None
    if before is not None and not ENTRY.fullmatch(before):
        raise Refused(400, "a page of the audit log ends before one of its entries")
    read = await context.inspector.audit.read(limit=PAGE, before_id=before)
    redactor = Redactor()  # whoever writes into the store may have written here, too
    entries = [
        replace(each, before=redactor.value(each.before), after=redactor.value(each.after))
        for each in read
    ]
    more = entries[-1].id if len(entries) == PAGE else None
    return Page("audit", "Audit log", {"entries": entries, "more": more, "now": context.now})

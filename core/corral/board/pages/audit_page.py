"""`/audit`: who changed what, the newest first."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from corral.board.board_context import BoardContext
from corral.board.messages import BoardPage, BoardRequest, RequestRefused
from corral.redactor import Redactor

__all__ = ["show_audit_log"]

ENTRIES_PER_PAGE: Final = 50
ENTRY_ID: Final = re.compile(r"\d{1,20}-\d{1,20}")


async def show_audit_log(request: BoardRequest, context: BoardContext) -> BoardPage:
    """Show one page of the audit log.

    Costs one read of the log, of at most ten times `ENTRIES_PER_PAGE` entries.
    """
    before = request.query.get("before") or None
    if before is not None and not ENTRY_ID.fullmatch(before):
        raise RequestRefused(400, "'before' is the id of an audit entry, such as 1700000000000-0")
    read = await context.inspector.audit.read(limit=ENTRIES_PER_PAGE, before_id=before)
    redactor = Redactor()  # other programs can write to this store, too
    entries = [
        replace(each, before=redactor.value(each.before), after=redactor.value(each.after))
        for each in read
    ]
    values = {
        "entries": entries,
        "older_than": entries[-1].id if len(entries) == ENTRIES_PER_PAGE else None,
        "now": context.now,
    }
    return BoardPage("audit", "Audit log", values)

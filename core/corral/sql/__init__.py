"""SQL for plugins and applications: an engine, a ledger of effects, an outbox, and their tables.

Needs the extra `sql`. It knows the catalog and the store, and no worker.
"""

try:
    from corral.sql.creating import require_tables
    from corral.sql.engines import (
        Connection,
        connection_of,
        create_engine,
        database_errors,
        engine,
        insert_if_absent,
    )
    from corral.sql.ledger import Ledger
    from corral.sql.outbox import Outbox
    from corral.sql.outbox_relay import OutboxRelay, Relayed
    from corral.sql.tables import Moment, ledger, metadata, outbox
    from corral.sql.transactions import TransactionSpoilt, ensure_unspoilt
except ModuleNotFoundError as missing:
    from corral.errors import MissingExtra

    if (missing.name or "").partition(".")[0] != "sqlalchemy":
        raise
    raise MissingExtra(
        "corral.sql needs SQLAlchemy, which is not installed: "
        "install the extra 'sql' from where you got corral"
    ) from missing

__all__ = [
    "Connection",
    "Ledger",
    "Moment",
    "Outbox",
    "OutboxRelay",
    "Relayed",
    "TransactionSpoilt",
    "connection_of",
    "create_engine",
    "database_errors",
    "engine",
    "ensure_unspoilt",
    "insert_if_absent",
    "ledger",
    "metadata",
    "outbox",
    "require_tables",
]

"""Before the examples of docs/sql.md."""

import types

from sqlalchemy import Column, MetaData, String, Table, insert

import corral
from acme_pages import EmailJob, emails
from corral import JobScheduler, sql
from corral.sql import Ledger, Outbox

users = Table("users", MetaData(), Column("email", String, primary_key=True))
payments = Table("payments", users.metadata, Column("id", String, primary_key=True))
engine = sql.create_engine()
async with engine.begin() as connection:
    await connection.run_sync(users.metadata.create_all)
event_id = "evt_1"
UserRegistered = types.SimpleNamespace
event = UserRegistered(email="ada@example.org", name="Ada")
jobs = await corral.connect().__aenter__()

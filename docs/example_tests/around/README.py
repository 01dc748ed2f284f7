"""Before the examples of README.md that follow its first queue."""

import types

from sqlalchemy import Column, MetaData, String, Table, insert

import corral
from acme_pages import EmailJob, emails
from corral import Cron, Payload, Queue, sql
from corral.board import Board
from fastapi import FastAPI


class Nothing(Payload):
    """A payload without a field."""


users = Table("users", MetaData(), Column("email", String, primary_key=True))
payments = Table("payments", users.metadata, Column("id", String, primary_key=True))
async with sql.create_engine().begin() as connection:
    await connection.run_sync(users.metadata.create_all)
email, variables = "ada@example.org", {"name": "Ada"}
job = types.SimpleNamespace(payload=types.SimpleNamespace(event_id="evt_1"))
app = FastAPI()


async def who_is_it(request):
    """Let nobody in."""

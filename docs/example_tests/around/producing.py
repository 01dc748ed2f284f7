"""Before the examples of docs/producing.md."""

import types

import corral
from acme_pages import EmailJob, Invoice, emails, invoices
from corral import Enqueued, EnqueueInterrupted, Entry, JobState

connected = corral.connect()
jobs = await connected.__aenter__()
users = [types.SimpleNamespace(id=number, email=f"{number}@example.org") for number in range(3)]
mail = EmailJob(to="ada@example.org", template="welcome")
mails = [EmailJob(to=user.email, template="news") for user in users]

"""The HTTP API: `uvicorn --factory examples.saas.api:create_app`.

It translates requests into use cases and back.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import AwareDatetime, BaseModel, Field

import corral
from corral import PayloadRefused, sql
from corral.observe.metrics import CONTENT_TYPE
from corral_billing_webhooks_retry import stripe
from corral_data_exports import links
from corral_data_exports.settings import ExportSettings
from corral_data_exports.storage import NoSuchExport, open_export
from corral_emails import Address
from corral_webhooks_outgoing.endpoints import EndpointRefused, add_endpoint
from examples.saas import accounts, board
from examples.saas.accounts import Refused
from examples.saas.callers import InWork, Me, operator
from examples.saas.settings import Settings

__all__ = ["create_app"]


class SignUp(BaseModel):
    """The body of `POST /signup`."""

    email: Address
    name: Annotated[str, Field(min_length=1, max_length=100)]
    invite: Annotated[str, Field(max_length=32)] | None = None
    member_since: AwareDatetime | None = None


class Note(BaseModel):
    """The body of `POST /notes`."""

    text: Annotated[str, Field(min_length=1, max_length=10_000)]


class Usage(BaseModel):
    """The body of `POST /usage`."""

    requests: Annotated[int, Field(gt=0, le=1_000_000)]
    at: AwareDatetime | None = None


class Export(BaseModel):
    """The body of `POST /exports`."""

    format: Literal["json", "csv"] = "json"


class Endpoint(BaseModel):
    """The body of `POST /endpoints`."""

    url: Annotated[str, Field(max_length=2000)]


router = APIRouter()


@router.post("/signup", status_code=201)
async def sign_up(body: SignUp, work: InWork) -> dict[str, str]:
    """An account; the answer has its token."""
    made = await accounts.sign_up(
        work, email=body.email, name=body.name, invite=body.invite, member_since=body.member_since
    )
    return {"id": made.user_id, "token": made.token}


@router.get("/account")
async def account(me: Me) -> dict[str, str]:
    """Who I am."""
    return {"id": me.id, "email": me.email, "name": me.name, "plan": me.plan}


@router.delete("/account", status_code=202)
async def delete_account(me: Me, work: InWork) -> dict[str, str]:
    """Forget me, when the grace period is over."""
    await accounts.delete_account(work, me)
    return {"status": "the account will be deleted; POST /account/restore takes that back"}


@router.post("/account/restore")
async def restore_account(me: Me, work: InWork) -> dict[str, str]:
    """Do not forget me."""
    if not await accounts.restore_account(work, me):
        raise Refused("there is no deletion to take back")
    return {"status": "the account stays"}


@router.post("/notes", status_code=201)
async def write_note(body: Note, me: Me, work: InWork) -> None:
    """Keep this."""
    await accounts.write_note(work, me, body.text)


@router.post("/usage", status_code=201)
async def use(
    body: Usage, me: Me, work: InWork, idempotency_key: Annotated[str | None, Header()] = None
) -> None:
    """Count this, once for each `Idempotency-Key`: a client that saw no answer sends it again."""
    await accounts.use(work, me, body.requests, body.at, idempotency_key)


@router.get("/usage")
async def usage(me: Me, work: InWork) -> list[dict[str, datetime | int]]:
    """My hours that are over."""
    hours = await accounts.closed_hours(work.connection, me)
    return [{"hour": hour.started_at, "requests": hour.requests} for hour in hours]


@router.post("/exports", status_code=202)
async def order_export(body: Export, me: Me, work: InWork) -> dict[str, str]:
    """Pack everything that is kept about me; a mail says when that is done."""
    return {"id": await accounts.order_export(work, me, body.format)}


@router.get("/exports/{key}")
async def download_export(key: str, expires: str, signature: str) -> StreamingResponse:
    """A packed export; whoever has the link of the mail may have it, as long as that is good."""
    secret = ExportSettings().link_secret
    if secret is None:
        raise HTTPException(404)
    try:
        links.verified(key, expires, signature, secret=secret.get_secret_value())
        opened = await open_export(key)
    except (links.LinkRefused, NoSuchExport) as error:
        raise HTTPException(404, str(error)) from None
    headers = {
        "Content-Length": str(opened.size),
        "Content-Disposition": 'attachment; filename="acme-export.zip"',
    }
    return StreamingResponse(opened.chunks, media_type="application/zip", headers=headers)


@router.post("/webhooks/stripe", status_code=202)
async def stripe_event(
    request: Request, work: InWork, stripe_signature: Annotated[str, Header()] = ""
) -> None:
    """What the payment provider says, if it is the provider who says it."""
    secret = request.app.state.settings.stripe_secret.get_secret_value()
    try:
        event = stripe.verified(await request.body(), stripe_signature, secret)
    except (stripe.SignatureRefused, PayloadRefused) as error:
        raise HTTPException(400, str(error)) from None
    await accounts.receive_billing_event(work, event)


@router.post("/endpoints", status_code=201, dependencies=[Depends(operator)])
async def add_webhook_endpoint(body: Endpoint, work: InWork) -> dict[str, str]:
    """Send a partner what happens; the answer has the secret that deliveries are signed with."""
    try:
        endpoint = await add_endpoint(work.connection, body.url)
    except EndpointRefused as error:
        raise Refused(str(error)) from None
    return {"id": endpoint.id, "secret": endpoint.secrets[0]}


@router.post("/rollover", status_code=202, dependencies=[Depends(operator)])
async def roll_over(work: InWork) -> None:
    """Close the hours that are over, now."""
    await accounts.order_rollover(work)


@router.get("/metrics", include_in_schema=False)
async def metrics(request: Request, authorization: Annotated[str, Header()] = "") -> Response:
    """What Prometheus reads; for anybody else there is no such thing."""
    try:
        operator(request, authorization)
    except HTTPException:
        raise HTTPException(404) from None
    return Response(await request.app.state.queues.metrics(), media_type=CONTENT_TYPE)


def create_app() -> FastAPI:
    """The application; it opens the database and the scheduler when it is started."""
    settings = Settings()  # type: ignore[call-arg]  # read from the environment

    @asynccontextmanager
    async def open_resources(app: FastAPI) -> AsyncIterator[None]:
        queues.start()  # a wrong setting of the board stops the application here
        engine = sql.create_engine()
        try:
            async with corral.connect() as jobs:
                app.state.engine, app.state.jobs, app.state.settings = engine, jobs, settings
                app.state.queues = queues
                yield
        finally:
            await queues.close()
            await engine.dispose()

    app = FastAPI(title="Acme", lifespan=open_resources)
    app.include_router(router)
    app.include_router(board.router)
    queues = board.mount_board(app)

    @app.exception_handler(Refused)
    async def answer_refusal(_request: Request, error: Refused) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 409)

    return app

"""The board: what the queues do, in a browser; and what an operator can do about it.

`Board` is an ASGI application, mounted in another one behind its session, or run alone by `corral
board`. Needs the extra `board`.
"""

try:
    from corral.board.application import Board
    from corral.board.identity import Action, Identity, Role
except ModuleNotFoundError as missing:
    from corral.errors import MissingExtra

    if (missing.name or "").partition(".")[0] not in {"starlette", "jinja2", "markupsafe"}:
        raise
    raise MissingExtra(
        f"the board needs {missing.name}, which is not installed: install the extra 'board' from where you got corral"
    ) from missing

__all__ = ["Action", "Board", "Identity", "Role"]

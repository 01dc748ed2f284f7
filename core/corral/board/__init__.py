"""The board: shows in a browser what the queues do, and lets operators act on jobs and queues.

`Board` is an ASGI application. It is mounted in another one, behind that one's session, or run
alone by `corral board`. It needs the extra `board`.
"""

try:
    from corral.board.application import Board
    from corral.board.identity import Action, Identity, Role
except ModuleNotFoundError as missing:
    from corral.errors import MissingExtra

    if (missing.name or "").partition(".")[0] not in {"starlette", "jinja2", "markupsafe"}:
        raise
    raise MissingExtra(
        f"the board needs {missing.name}, which is not installed:"
        " install the extra 'board' from where you got corral"
    ) from missing

__all__ = ["Action", "Board", "Identity", "Role"]

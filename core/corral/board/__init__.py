"""The board: what the queues do, in a browser; and what an operator can do about it.

`Board` is an ASGI application, mounted in another one behind its session, or run alone by `corral board`.
"""

from corral.board.application import Board
from corral.board.identity import Action, Identity, Role

__all__ = ["Action", "Board", "Identity", "Role"]

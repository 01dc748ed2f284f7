"""The program `corral`, and `python -m corral`: it handles signals from its first line on, then
loads the rest.
"""

from __future__ import annotations

import sys

from corral.shutdown import is_stopped_early, listen, stop_code

__all__ = ["main"]


def main() -> None:
    """The `corral` program."""
    try:
        listen()
        from corral.cli import main as run  # noqa: PLC0415  # it takes longer than a signal may wait

        run()
    except (KeyboardInterrupt, Exception) as error:
        if isinstance(error, KeyboardInterrupt) or is_stopped_early():
            sys.exit(stop_code())
        raise


if __name__ == "__main__":
    main()

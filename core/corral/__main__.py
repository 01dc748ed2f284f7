"""The program `corral`, and `python -m corral`.

It handles signals before it loads anything else.
"""

from __future__ import annotations

import sys

from corral.shutdown import is_stopped_early, listen, stop_code

__all__ = ["main"]


def main() -> None:
    """The `corral` program."""
    try:
        listen()
        from corral.cli import main as run  # noqa: PLC0415  # loading it takes longer than a signal may wait

        run()
    except (KeyboardInterrupt, Exception) as error:
        if isinstance(error, KeyboardInterrupt) or is_stopped_early():
            sys.exit(stop_code())
        raise


if __name__ == "__main__":
    main()

"""`corral board`: serve the board without an application."""

from __future__ import annotations

import sys

import click

from corral.cli.results import command, print_result
from corral.errors import ConfigurationError
from corral.shutdown import begin_service

__all__ = ["board"]


@command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8765,
    show_default=True,
    metavar="N",
    help="The port; 0 for any free one.",
)
@click.option(
    "--hash-password",
    is_flag=True,
    help="Ask for a password, print the value for CORRAL_BOARD_PASSWORD, and exit.",
)
def board(host: str, port: int, hash_password: bool) -> None:
    """Serve the board by itself, for an administrator who logs in with a password.

    In development, without a password, it prints a link that logs in once.

    \b
    corral board --hash-password
    CORRAL_BOARD_ENABLED=true CORRAL_BOARD_PASSWORD=scrypt:… corral board
    """
    if hash_password:
        _print_password_hash()
        return
    begin_service()
    from corral.board.serving import run_board

    run_board(host, port)


def _print_password_hash() -> None:
    """Ask twice on a terminal, or read a line from stdin, and print the digest."""
    from corral.board.passwords import PasswordDigest

    if sys.stdin.isatty():
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    try:
        print_result(str(PasswordDigest.of(password)))
    except ValueError as error:
        raise ConfigurationError(str(error)) from None

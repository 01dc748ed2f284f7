"""Error replies as servers spell them, as our own connections hand them on and as the client
library does.
"""

from __future__ import annotations

import pytest
from redis._parsers.base import BaseParser
from redis.exceptions import ConnectionError as Lost
from redis.exceptions import ResponseError as TheirResponseError
from redis.exceptions import TimeoutError as Late

from corral.errors import StoreUnavailable
from corral.store.redis_py import as_ours
from corral.store.replies import (
    NoScriptError,
    ResponseError,
    explain_client_error,
    is_missing_right,
    refusal,
    unavailable,
    unexpected,
)

URL = "redis://ada:secret@store:6379/0"
WHERE = " script: 7f58ca2f7e862ee6cd392c06a763242c0d3bcf8e, on @user_script:1."
WHERE_IN_VALKEY = " script: on @user_script:12."

REFUSED = {
    "NOPERM User u has no permissions to run the 'zadd' command": "does not let its user do this",
    "NOPERM this user has no permissions to access one of the keys used as arguments": (
        "does not let its user do this"
    ),
    "NOAUTH Authentication required.": "wants a password",
    "WRONGPASS invalid username-password pair or user is disabled.": (
        "refuses this user name and password"
    ),
    "OOM command not allowed when used memory > 'maxmemory'.": "has no memory left",
    "MISCONF Valkey is configured to save RDB snapshots, but": "cannot write to its disk",
    "READONLY You can't write against a read only replica.": "is a replica",
    "NOREPLICAS Not enough good replicas to write.": "too few replicas",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.": (
        "lost its primary"
    ),
    "UNBLOCKED force unblock from blocking operation, "
    "instance state changed (master -> replica?)": "become a replica",
    "LOADING Redis is loading the dataset in memory": "still loads its data",
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.": (
        "is busy with a script"
    ),
    "CLUSTERDOWN Hash slot not served": "is a node of a cluster that does not work",
    "MOVED 3999 127.0.0.1:6381": "another one holds these keys",
    "ASK 3999 127.0.0.1:6381": "another one receives these keys",
    "TRYAGAIN Multiple keys request during rehashing of slot": "hands these keys over",
    "CROSSSLOT Keys in request don't hash to the same slot": "are in different slots",
    "ERR unknown command 'EVALSHA', with args beginning with: 'a secret' ": (
        "does not know a command"
    ),
    "ERR Protocol error: unauthenticated multibulk length": "wants a password",
    "ERR max number of clients reached": "takes no more connections",
    "ERR DB index is out of range": "has no database of this number",
}
UNKNOWN = {
    "ERR ACL failure in script: User u has no permissions to run the 'zadd' command": (
        "does not let its user do this"
    ),
    "ERR ACL failure in script: No permissions to access a key": "does not let its user do this",
    "ERR The user executing the script can't run this command or subcommand": (
        "does not let its user do this"
    ),
    "ERR The user executing the script can't access at least one of the keys mentioned "
    "in the command arguments": "does not let its user do this",
    "ERR Script attempted to access a non local key in a cluster node": (
        "does not serve all of these keys"
    ),
    "ERR Attempted to access a non local key in a cluster node": "does not serve all of these keys",
    "ERR Script attempted to execute a command while the cluster is down": (
        "does not serve all of these keys"
    ),
    "ERR Unknown Redis command called from script": "does not know a command",
    "ERR Unknown Valkey command called from script": "does not know a command",
}
ANSWERS = [
    "WRONGTYPE Operation against a key holding the wrong kind of value",
    "BUSYGROUP Consumer Group name already exists",
    "BUSYKEY Target key name already exists.",
    "STALECALL 4 after 5",
    "DAMAGED bull:letters:meta is a string, not a hash",
    "ERR value is not an integer or out of range",
    "ERR user_script:1: something that nobody has foreseen",
]
"""What answers the command, and is no refusal."""


def as_we_read_it(raw: str) -> ResponseError:
    return ResponseError(raw.removeprefix("ERR "))


def as_the_client_reads_it(raw: str) -> Exception:
    error = as_ours(BaseParser.parse_error(raw))
    assert error is not None
    return error


@pytest.mark.parametrize("read", [as_we_read_it, as_the_client_reads_it])
@pytest.mark.parametrize(("raw", "sentence"), [*REFUSED.items(), *UNKNOWN.items()])
def test_each_kind_has_a_sentence_and_a_hint_and_says_whether_something_was_written(
    raw: str, sentence: str, read: object
) -> None:
    assert callable(read)
    explained = refusal(read(raw), URL)
    assert explained is not None
    assert str(explained).startswith("the store at redis://ada:***@store:6379/0 ")
    assert sentence in str(explained)
    assert "\n" not in str(explained)
    assert explained.hint
    assert explained.outcome == ("refused" if raw in REFUSED else "unknown")
    assert "secret" not in str(explained), "neither the password, nor what a command was given"


@pytest.mark.parametrize("where", [WHERE, WHERE_IN_VALKEY])
@pytest.mark.parametrize(
    "raw", [*UNKNOWN, "OOM command not allowed when used memory > 'maxmemory'."]
)
def test_the_place_in_a_script_is_left_out(raw: str, where: str) -> None:
    explained = refusal(as_we_read_it(raw + where), URL)
    assert explained is not None
    assert "script:" not in str(explained).replace("failure in script: ", "")
    assert explained.outcome == ("unknown" if raw in UNKNOWN else "refused")


@pytest.mark.parametrize("read", [as_we_read_it, as_the_client_reads_it])
@pytest.mark.parametrize("raw", ANSWERS)
def test_what_answers_a_command_is_no_refusal_and_no_secret_explain_client_error_library_either(
    raw: str, read: object
) -> None:
    assert callable(read)
    error = read(raw)
    assert isinstance(error, ResponseError)
    assert refusal(error, URL) is None
    explained = unexpected(error, URL)
    assert explained.hint
    assert explained.exit_code == 4
    word = raw.partition(" ")[0]
    assert explained.outcome == ("refused" if word in {"DAMAGED", "WRONGTYPE"} else "unknown")


def test_a_wrong_type_in_a_script_says_nothing_of_what_was_written_before() -> None:
    error = ResponseError(
        "WRONGTYPE Operation against a key holding the wrong kind of value" + WHERE_IN_VALKEY
    )
    assert unexpected(error, URL).outcome == "unknown"


def test_no_script_of_that_name_is_for_whoever_sends_it_then() -> None:
    assert refusal(NoScriptError("No matching script."), URL) is None


@pytest.mark.parametrize("refused", [True, False])
def test_a_lost_connection_is_no_refusal(refused: bool) -> None:
    lost = as_ours(Lost("Connection closed by server."))
    assert lost is not None
    explained = unavailable(lost, URL, refused=refused)
    assert (
        str(explained)
        == "the store at redis://ada:***@store:6379/0 is unavailable: Connection closed by server"
    )
    assert explained.outcome == ("refused" if refused else "unknown")


def test_what_the_client_library_wraps_while_it_connects_is_found() -> None:
    wrapped = Lost("auth")
    wrapped.__cause__ = BaseParser.parse_error(
        "WRONGPASS invalid username-password pair or user is disabled."
    )
    assert "refuses this user name and password" in str(explain_client_error(wrapped))


def test_a_missing_right_is_known_as_one() -> None:
    for raw, sentence in {**REFUSED, **UNKNOWN}.items():
        explained = refusal(as_we_read_it(raw), URL)
        assert explained is not None
        assert is_missing_right(explained) == (sentence == "does not let its user do this")


@pytest.mark.parametrize(
    "error", [ResponseError("anything"), TheirResponseError("anything"), Late("late"), Lost("gone")]
)
def test_whatever_the_client_library_raises_becomes_an_error_of_ours(error: Exception) -> None:
    assert isinstance(explain_client_error(error), StoreUnavailable)


def test_what_somebody_else_raises_is_left_alone() -> None:
    assert explain_client_error(ValueError("a bug")) is None

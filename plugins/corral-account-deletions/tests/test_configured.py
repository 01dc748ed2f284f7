"""Tables that need no code: the file, compared with the database, and what it does to rows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

import corral.sql
import corral_account_deletions
from corral import Deps, testing
from corral.errors import ConfigurationError
from corral.inspector import of_worker
from corral_account_deletions import Kept
from corral_account_deletions.configured import (
    check_tables,
    erase_configured,
    find_configured_owners,
)
from corral_account_deletions.processor import open_deletions
from corral_account_deletions.tables import metadata
from corral_account_deletions.tables_file import read_tables

SCHEMA = (
    "CREATE TABLE users (id INTEGER PRIMARY KEY, email VARCHAR(80) NOT NULL, age INTEGER)",
    "CREATE TABLE orders (id INTEGER PRIMARY KEY, customer_id INTEGER REFERENCES users (id), note VARCHAR(80))",
    "CREATE TABLE lines (id INTEGER PRIMARY KEY, owner VARCHAR(40), order_id INTEGER NOT NULL REFERENCES orders (id))",
    "CREATE TABLE invoices (number INTEGER PRIMARY KEY, customer_id INTEGER REFERENCES users (id), name VARCHAR(80))",
    "INSERT INTO users VALUES (1, 'ada@example.org', 36), (11, 'bob@example.org', 40)",
    "INSERT INTO orders VALUES (1, 1, 'x'), (2, 1, 'y'), (3, 11, 'z')",
    "INSERT INTO lines VALUES (1, '1', 1), (2, '1', 2), (3, '11', 3)",
    "INSERT INTO invoices VALUES (1, 1, 'Ada'), (2, 11, 'Bob')",
)

GOOD = """
[users]
table = "users"
id_column = "id"
email_column = "email"

[tables.users]                       # before the tables that refer to it: the database knows better
user_column = "id"
action = "delete"
export = ["id", "email"]

[tables.orders]
user_column = "customer_id"
action = "delete"

[tables.lines]
user_column = "owner"
action = "delete"

[tables.invoices]
user_column = "customer_id"
action = "anonymize"
columns = ["name", "customer_id"]

[tables.visits]                      # for data-exports alone: it need not even be here
user_column = "user_id"
export = ["at"]
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """`file("…")`: the tables file."""

    def write(content: str) -> Path:
        path = tmp_path / "accounts.toml"
        path.write_text(content, "utf-8")
        monkeypatch.setenv("CORRAL_ACCOUNT_DELETIONS_TABLES", str(path))
        return path

    return write


def refusal(path: Path) -> list[str]:
    with pytest.raises(ConfigurationError) as refused:
        read_tables(path)
    first, *faults = str(refused.value).splitlines()
    assert first == f"the tables file {str(path)!r} was refused:"
    return [fault.strip() for fault in faults]


def test_a_file_is_read(file: Callable[[str], Path]) -> None:
    tables = read_tables(file(GOOD))
    assert list(tables) == ["users", "orders", "lines", "invoices"]
    assert tables["invoices"].overwritten == {"name": None, "customer_id": None}


@pytest.mark.parametrize(
    ("content", "faults"),
    [
        ("[tabels.orders]", ["'tabels' is not known; did you mean 'tables'?"]),
        (
            '[tables.orders]\nuser_colum = "u"\naction = "delete"',
            [
                "table 'orders': user_column: field required",
                "table 'orders': 'user_colum' is not known; did you mean 'user_column'?",
            ],
        ),
        (
            '[tables.orders]\nuser_column = "u"\naction = "drop"\n[tables.invoices]\nuser_column = 7\nexport = []',
            [
                "table 'orders': action: input should be 'delete', 'anonymize' or 'keep'",
                "table 'invoices': user_column: input should be a valid string",
            ],
        ),
        (
            '[tables.orders]\nuser_column = "u"',
            ["table 'orders': neither 'action' nor 'export' says what the table is for"],
        ),
        (
            '[tables.a]\nuser_column="u"\naction="anonymize"\n[tables.b]\nuser_column="u"\naction="delete"\ncolumns=["x"]',
            [
                "table 'a': 'anonymize' needs 'columns'",
                "table 'b': 'columns' is for the action 'anonymize'",
            ],
        ),
        (
            '[tables.a]\nuser_column="u"\naction="keep"\n[tables.b]\nuser_column="u"\naction="delete"\nreason="x"',
            [
                "table 'a': 'keep' needs a 'reason': the user gets to read it",
                "table 'b': 'reason' is for the actions 'keep' and 'anonymize'",
            ],
        ),
        (
            '[users]\ntable = "users"\nid_colum = "id"\nemail_column = "email"',
            [
                "[users]: id_column: field required",
                "[users]: 'id_colum' is not known; did you mean 'id_column'?",
            ],
        ),
        ("tables = 7", ["tables: input should be a valid dictionary"]),
    ],
)
def test_what_is_wrong_in_a_file_is_reported_with_its_table(
    file: Callable[[str], Path], content: str, faults: list[str]
) -> None:
    assert refusal(file(content)) == faults


def test_columns_that_are_neither_a_list_nor_a_table_are_one_fault(
    file: Callable[[str], Path],
) -> None:
    faults = refusal(
        file('[tables.orders]\nuser_column = "u"\naction = "anonymize"\ncolumns = "name"')
    )
    assert {fault.partition(": input")[0] for fault in faults} == {"table 'orders': columns"}


def test_a_file_that_cannot_be_read_is_named(file: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"accounts.toml' cannot be read: .*line 2, column 3"
    ):
        read_tables(file("[tables]\nx y = 7"))
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_tables(tmp_path / "none.toml")


@pytest_asyncio.fixture
async def shop(engine: AsyncEngine) -> AsyncEngine:
    """A shop's database; users have numbers."""
    async with engine.begin() as connection:
        for tables in (metadata, corral.sql.metadata):
            await connection.run_sync(tables.create_all)
        for statement in SCHEMA:
            await connection.execute(text(statement))
    return engine


async def erased(engine: AsyncEngine, user_id: str) -> Any:
    async with engine.begin() as connection:
        return await erase_configured(connection, user_id)


async def rows(engine: AsyncEngine, query: str) -> list[tuple[Any, ...]]:
    async with engine.connect() as connection:
        return [tuple(row) for row in await connection.execute(text(query))]


@pytest.mark.asyncio
async def test_rows_go_before_the_rows_that_they_refer_to(
    shop: AsyncEngine, file: Callable[[str], Path]
) -> None:
    file(GOOD)
    why = "anonymized: name, customer_id"
    assert await erased(shop, "1") == {
        "invoices": Kept(1, why, anonymized=True),
        "lines": 2,
        "orders": 2,
        "users": 1,
    }
    assert await rows(shop, "SELECT * FROM users") == [(11, "bob@example.org", 40)]
    assert await rows(shop, "SELECT id FROM orders") == [(3,)]
    assert await rows(shop, "SELECT id FROM lines") == [(3,)]
    assert await rows(shop, "SELECT * FROM invoices ORDER BY number") == [
        (1, None, None),
        (2, 11, "Bob"),
    ]
    assert await erased(shop, "1") == {
        "invoices": Kept(0, why, anonymized=True),
        "lines": 0,
        "orders": 0,
        "users": 0,
    }


@pytest.mark.asyncio
async def test_rows_are_kept_with_their_reason(
    shop: AsyncEngine, file: Callable[[str], Path]
) -> None:
    file(
        '[tables.orders]\nuser_column = "customer_id"\naction = "keep"\nreason = "ten years, tax law"\n'
        '[tables.invoices]\nuser_column = "customer_id"\naction = "anonymize"\ncolumns = ["name"]\n'
        'reason = "statistics"'
    )
    before = await rows(shop, "SELECT * FROM orders ORDER BY id")
    assert await erased(shop, "1") == {
        "orders": Kept(2, "ten years, tax law"),
        "invoices": Kept(1, "statistics", anonymized=True),
    }
    assert await rows(shop, "SELECT * FROM orders ORDER BY id") == before


@pytest.mark.asyncio
async def test_the_owners_of_an_address_are_found_in_any_case(
    shop: AsyncEngine, file: Callable[[str], Path]
) -> None:
    async with shop.begin() as connection:
        await connection.execute(text("INSERT INTO users VALUES (12, 'ADA@example.org', 1)"))
        file(GOOD)
        assert sorted(await find_configured_owners(connection, "Ada@Example.org") or ()) == [
            "1",
            "12",
        ]
        assert await find_configured_owners(connection, "nada@example.org") == []
        file('[tables.users]\nuser_column = "id"\naction = "delete"')
        assert await find_configured_owners(connection, "ada@example.org") is None


@pytest.mark.asyncio
async def test_columns_are_overwritten_with_texts(
    shop: AsyncEngine, file: Callable[[str], Path]
) -> None:
    file(
        '[tables.users]\nuser_column = "id"\naction = "anonymize"\ncolumns = { email = "nobody@invalid" }'
    )
    assert await erased(shop, "1") == {"users": Kept(1, "anonymized: email", anonymized=True)}
    assert await rows(shop, "SELECT email FROM users ORDER BY id") == [
        ("nobody@invalid",),
        ("bob@example.org",),
    ]


@pytest.mark.asyncio
async def test_without_a_file_nobody_is_erased(shop: AsyncEngine) -> None:
    assert await erased(shop, "1") == {}


@pytest.mark.asyncio
async def test_an_id_that_a_column_cannot_hold_is_no_silent_miss(
    shop: AsyncEngine, file: Callable[[str], Path]
) -> None:
    file(GOOD)
    with pytest.raises(
        ValueError, match=r"the user's id is no value for users.id \(INTEGER\)|invoices.customer_id"
    ):
        await erased(shop, "ada")


@pytest.mark.asyncio
async def test_ids_of_every_kind_are_found(
    engine: AsyncEngine, file: Callable[[str], Path]
) -> None:
    user_id, other = str(uuid4()), str(uuid4())
    kinds = {"texts": "VARCHAR(36)", "big": "BIGINT", "exact": "NUMERIC(20)"}
    if engine.dialect.name == "postgresql":
        kinds["uuids"] = "UUID"
    for name, kind in kinds.items():
        mine, theirs = ("7", "77") if name in {"big", "exact"} else (f"'{user_id}'", f"'{other}'")
        async with engine.begin() as connection:
            await connection.execute(text(f"CREATE TABLE {name} (u {kind})"))
            await connection.execute(text(f"INSERT INTO {name} VALUES ({mine}), ({theirs})"))
        file(f'[tables.{name}]\nuser_column = "u"\naction = "delete"')
        assert await erased(engine, "7" if mine == "7" else user_id) == {name: 1}


@pytest.mark.asyncio
async def test_tables_in_a_circle_go_as_in_the_file(
    engine: AsyncEngine, file: Callable[[str], Path]
) -> None:
    reference = "REFERENCES teams (id) ON DELETE CASCADE"
    statements = [
        "CREATE TABLE teams (id INTEGER PRIMARY KEY, owner INTEGER)",
        f"CREATE TABLE people (id INTEGER PRIMARY KEY, boss INTEGER REFERENCES people (id), team INTEGER {reference})",
        "INSERT INTO teams VALUES (5, 1)",
        "INSERT INTO people VALUES (1, NULL, 5)",
    ]
    if engine.dialect.name == "postgresql":
        statements.append("ALTER TABLE teams ADD FOREIGN KEY (owner) REFERENCES people (id)")
    async with engine.begin() as connection:
        for statement in statements:
            await connection.execute(text(statement))
    file(
        '[tables.teams]\nuser_column = "owner"\naction = "delete"\n'
        '[tables.people]\nuser_column = "id"\naction = "delete"'
    )
    removed = await erased(engine, "1")
    assert await rows(engine, "SELECT * FROM teams UNION SELECT id, boss FROM people") == []
    assert removed["teams"] == 1


@pytest.mark.asyncio
async def test_a_row_that_somebody_else_s_row_refers_to_stops_it(
    shop: AsyncEngine, file: Callable[[str], Path]
) -> None:
    file('[tables.users]\nuser_column = "id"\naction = "delete"')
    with pytest.raises(IntegrityError):
        await erased(shop, "1")


@pytest.mark.asyncio
async def test_a_table_in_a_schema(engine: AsyncEngine, file: Callable[[str], Path]) -> None:
    schema = "main" if engine.dialect.name == "sqlite" else "billing"
    async with engine.begin() as connection:
        if schema == "billing":
            await connection.execute(text("CREATE SCHEMA billing"))
            await connection.execute(text("SET LOCAL search_path TO billing"))
        await connection.execute(text("CREATE TABLE customers (id INTEGER PRIMARY KEY)"))
        await connection.execute(text("CREATE TABLE cards (c INTEGER REFERENCES customers (id))"))
        await connection.execute(text("INSERT INTO customers VALUES (1)"))
        await connection.execute(text("INSERT INTO cards VALUES (1)"))
    path = file(
        f'[tables."{schema}.customers"]\nuser_column = "id"\naction = "delete"\n'
        f'[tables."{schema}.cards"]\nuser_column = "c"\naction = "delete"'
    )
    async with engine.connect() as connection:
        await check_tables(connection, path)
    assert await erased(engine, "1") == {f"{schema}.cards": 1, f"{schema}.customers": 1}


WRONG = """
[tables.user]
user_column = "id"
action = "delete"

[tables.orders]
user_column = "custmer_id"
action = "anonymize"
columns = ["note", "remark"]

[tables.users]
user_column = "id"
action = "anonymize"
columns = ["email"]

[tables.lines]
user_column = "owner"
action = "anonymize"
columns = { order_id = "none" }
"""


@pytest_asyncio.fixture
async def deps() -> AsyncIterator[Deps]:
    async with AsyncExitStack() as resources:
        inspector: Any = SimpleNamespace(queues=("emails",))
        yield testing.deps(
            plugins={"the plugin": corral_account_deletions},
            resources=resources,
            provided={of_worker: inspector},
        )


@pytest.mark.asyncio
async def test_a_worker_does_not_start_with_a_file_that_does_not_fit_the_database(
    shop: AsyncEngine, file: Callable[[str], Path], deps: Deps
) -> None:
    path = file(WRONG)
    with pytest.raises(ConfigurationError) as refused:
        async with open_deletions(deps):
            pass
    assert [line.strip() for line in str(refused.value).splitlines()] == [
        f"the tables file {str(path)!r} was refused:",
        "table 'user' is not in the database; did you mean 'users'?",
        "table 'orders' has no column 'custmer_id'; did you mean 'customer_id'?",
        "table 'orders' has no column 'remark'",
        "table 'users': column 'email' cannot be NULL; give it a text: columns = { email = \"deleted\" }",
        "table 'lines': column 'order_id' (INTEGER) can hold no text",
    ]
    file(GOOD)
    async with open_deletions(deps) as deletions:
        request: Any = SimpleNamespace(user_id="1", email=None)  # enough of one
        person = await deletions.deletion.find_person(request)
    assert person.is_identified_in({"customer_id": 1}), "the file names the columns of users' ids"
    assert person.is_identified_in({"owner": "1"})
    assert not person.is_identified_in({"id": 1}), "which is everything's name for its id"


@pytest.mark.asyncio
async def test_a_worker_without_its_tables_does_not_start(engine: AsyncEngine, deps: Deps) -> None:
    lacking = (
        "account_deletion_requests, account_deletion_receipts, account_deletion_kept, "
        "corral_outbox$"
    )
    with pytest.raises(ConfigurationError, match=f" lacks the tables {lacking}") as refused:
        async with open_deletions(deps):
            pass
    assert refused.value.hint == "corral db create"


@pytest.mark.asyncio
async def test_a_worker_starts_while_the_database_is_away(
    file: Callable[[str], Path], deps: Deps, monkeypatch: pytest.MonkeyPatch
) -> None:
    file(GOOD)
    monkeypatch.setenv("CORRAL_DATABASE_URL", "postgresql+asyncpg://app@/app?host=/nowhere")
    async with open_deletions(deps):
        pass


@pytest.mark.asyncio
async def test_settings_that_cannot_be_used_are_reported_at_once(
    deps: Deps, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"GRACE_DAYS": "soon", "TABLE": "x"}.items():
        monkeypatch.setenv(f"CORRAL_ACCOUNT_DELETIONS_{name}", value)
    with pytest.raises(ConfigurationError) as refused:
        async with open_deletions(deps):
            pass
    first, *faults = str(refused.value).splitlines()
    assert first == "the settings of account-deletions were refused:"
    assert faults[0].strip().startswith("CORRAL_ACCOUNT_DELETIONS_TABLE is not a setting; did you")
    names = [fault.strip().partition(":")[0] for fault in faults[1:]]
    assert names == ["CORRAL_ACCOUNT_DELETIONS_GRACE_DAYS"]

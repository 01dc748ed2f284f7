"""Whose tables there are, who may not have them, and what making them twice does."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from types import ModuleType

import pytest
from sqlalchemy import Column, ForeignKey, Integer, MetaData, Table, inspect
from sqlalchemy.ext.asyncio import AsyncEngine

from corral import hookimpl, sql
from corral.errors import CatalogError, ConfigurationError
from corral.plugins import PluginEntryPoint, Plugins, Provider, built_in_plugins
from corral.plugins.entry_points import PLUGINS
from corral.sql.creating import create_tables

pytestmark = pytest.mark.asyncio


def tables(*names: str) -> MetaData:
    metadata = MetaData()
    for name in names:
        Table(name, metadata, Column("id", Integer, primary_key=True))
    return metadata


def plugins(monkeypatch: pytest.MonkeyPatch, **offered: Callable[[], object]) -> Plugins:
    """Plugins by their distributions' names, each with its own `corral_tables`."""
    entry_points = [*built_in_plugins()]
    for name, answer in offered.items():
        module = ModuleType(name)

        def corral_tables(answer: Callable[[], object] = answer) -> object:
            return answer()

        module.corral_tables = hookimpl(corral_tables)  # type: ignore[attr-defined]  # made for this test
        monkeypatch.setitem(sys.modules, name, module)
        entry_points.append(PluginEntryPoint(name, name, PLUGINS, Provider(name, "1.0", "wheel")))
    loaded = Plugins.load(entry_points)
    assert not loaded.report.problems
    return loaded


async def there(engine: AsyncEngine) -> list[str]:
    async with engine.connect() as connection:
        return sorted(await connection.run_sync(lambda own: inspect(own).get_table_names()))


CORE = ["corral_ledger", "corral_outbox"]


async def test_the_tables_of_the_core_and_of_every_plugin_are_made_once(
    bare_engine, monkeypatch
) -> None:
    acme, own = tables("acme_parcels"), tables("acme_usage", "acme_periods")
    Table("acme_lines", acme, Column("parcel", ForeignKey("acme_parcels.id"), primary_key=True))
    loaded = plugins(monkeypatch, acme=lambda: [acme], usage=lambda: [own])

    made = await create_tables(bare_engine, loaded)
    assert sorted((each.table, each.provider.distribution, each.made) for each in made) == [
        ("acme_lines", "acme", True),
        ("acme_parcels", "acme", True),
        ("acme_periods", "usage", True),
        ("acme_usage", "usage", True),
        ("corral_ledger", "corral", True),
        ("corral_outbox", "corral", True),
    ]
    assert await there(bare_engine) == sorted(each.table for each in made)
    again = await create_tables(bare_engine, loaded)
    assert [(each.table, each.made) for each in again] == [(each.table, False) for each in made]


async def test_making_them_several_times_at_once_makes_each_once(bare_engine, monkeypatch) -> None:
    loaded = plugins(monkeypatch, acme=lambda: [tables("acme_parcels")])
    reports = await asyncio.gather(*(create_tables(bare_engine, loaded) for _ in range(4)))
    made = [each.table for report in reports for each in report if each.made]
    assert sorted(made) == ["acme_parcels", *CORE]


async def test_a_table_that_one_plugin_hands_on_for_another_is_no_conflict(
    bare_engine, monkeypatch
) -> None:
    shared = tables("acme_parcels")
    made = await create_tables(
        bare_engine, plugins(monkeypatch, acme=lambda: [shared], usage=lambda: [shared])
    )
    assert [each.table for each in made].count("acme_parcels") == 1


@pytest.mark.parametrize("theirs", ["acme_parcels", "Acme_Parcels"])
async def test_two_plugins_with_tables_of_one_name_are_refused_both_by_name(
    bare_engine, monkeypatch, theirs
) -> None:
    loaded = plugins(
        monkeypatch, acme=lambda: [tables("acme_parcels")], usage=lambda: [tables(theirs)]
    )
    with pytest.raises(CatalogError) as refused:
        await create_tables(bare_engine, loaded)
    (problem,) = refused.value.problems
    assert problem.code == "duplicate-table"
    assert sorted(problem.providers) == ["acme 1.0", "usage 1.0"]
    assert (
        f"table {theirs!r} is declared twice: " in problem.message
        or "table 'acme_parcels'" in problem.message
    )
    assert problem.hint
    assert "CORRAL_DISABLED_PLUGINS=" in problem.hint
    assert await there(bare_engine) == []


async def test_a_plugin_cannot_have_the_cores_tables(bare_engine, monkeypatch) -> None:
    with pytest.raises(
        CatalogError, match=r"table 'corral_ledger' is declared twice: corral \S+ and acme 1\.0"
    ):
        await create_tables(
            bare_engine, plugins(monkeypatch, acme=lambda: [tables("corral_ledger")])
        )


def broken() -> object:
    raise ImportError("no module named 'weather'")


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (broken, "hook-raised"),
        (lambda: None, "hook-result"),
        (lambda: ["acme_parcels"], "hook-result"),
    ],
)
async def test_a_plugin_that_cannot_be_asked_is_blamed_and_nothing_is_made(
    bare_engine, monkeypatch, answer, code
) -> None:
    with pytest.raises(CatalogError) as refused:
        await create_tables(bare_engine, plugins(monkeypatch, acme=answer))
    (problem,) = refused.value.problems
    assert problem.code == code
    assert "acme 1.0" in problem.message
    assert "corral_tables" in problem.message
    assert await there(bare_engine) == []


async def test_tables_that_are_missing_refuse_a_start_and_a_database_that_is_away_does_not(
    bare_engine,
) -> None:
    with pytest.raises(
        ConfigurationError,
        match=r"the database at .* lacks the tables corral_ledger, corral_outbox$",
    ) as raised:
        await sql.require_tables(bare_engine, sql.ledger, sql.outbox)
    assert raised.value.hint == "corral db create"
    async with bare_engine.begin() as connection:
        await connection.run_sync(sql.ledger.create)
    await sql.require_tables(bare_engine, sql.ledger)
    with pytest.raises(ConfigurationError, match=r"lacks the table corral_outbox$"):
        await sql.require_tables(bare_engine, sql.ledger, sql.outbox)
    away = sql.create_engine("postgresql://corral@/corral?host=/nowhere")
    await sql.require_tables(away, sql.ledger)
    await away.dispose()

"""Plugins are imported one by one, their hooks checked, and faults reported with their names."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from corral.errors import CatalogError
from corral.plugins import Plugins, Report
from corral.queue import Queue

DECLARING = """
queues = [Queue(name, P) for name in {names}]
@hookimpl
def corral_queues(): return queues
"""


def test_a_module_that_several_entry_points_name_is_loaded_once_and_blamed_for_all(
    site: Any, codes: Any
) -> None:
    site.module("acme", DECLARING.format(names=["a", "b"]))
    site.install("acme", "a = acme", "b = acme", "c = acme.missing")
    plugins = site.load()
    (plugin,) = plugins.loaded
    assert [each.name for each in plugin.entry_points] == ["a", "b"]
    assert plugin.hooks == ("corral_queues",)
    assert [queue.name for _, queue in plugins.ask("corral_queues", Queue, Report())] == ["a", "b"]
    assert codes(plugins) == ["import-error"]
    assert plugins.report.problems[0].message.startswith(
        "plugin 'c' (acme 1.0) failed to import 'acme.missing'"
    )


def test_a_broken_module_is_one_problem_whichever_number_of_entry_points_name_it(site: Any) -> None:
    site.module("acme", "raise OSError('no licence key\\nin this folder')")
    site.install("acme", "a = acme", "b = acme")
    (problem,) = site.load().report.problems
    assert problem.message == (
        "plugins 'a', 'b' (acme 1.0) failed to import 'acme': OSError: no licence key in this"
        " folder"
    )
    assert problem.providers == ("acme 1.0",)


def test_an_entry_point_may_name_an_object_of_a_module(site: Any, codes: Any) -> None:
    site.module(
        "acme",
        "class Plugin:\n    @hookimpl\n    def corral_queues(self): return [Queue('a', P)]\n"
        "it = Plugin()",
    )
    site.install("acme", "a = acme:it")
    plugins = site.load()
    assert codes(plugins) == []
    assert [queue.name for _, queue in plugins.ask("corral_queues", Queue, Report())] == ["a"]


@pytest.mark.parametrize("value", ["acme:nothing", "no module", "acme:"])
def test_an_entry_point_that_leads_nowhere_is_an_import_error(
    value: str, site: Any, codes: Any
) -> None:
    site.module("acme", "")
    site.install("acme", f"a = {value}")
    assert codes(site.load()) == ["import-error"]


def test_a_module_that_exits_the_process_does_not(site: Any) -> None:
    site.module("acme", "raise SystemExit('set ACME_KEY first')")
    site.install("acme", "a = acme")
    (problem,) = site.load().report.problems
    assert problem.message.endswith("SystemExit: set ACME_KEY first")


def test_a_long_exception_is_cut_in_the_report_and_whole_behind_it(site: Any) -> None:
    site.module("acme", "raise ValueError('x' * 2000)")
    site.install("acme", "a = acme")
    report = site.load().report
    assert len(report.problems[0].message) < 400
    with pytest.raises(CatalogError) as refused:
        report.raise_problems()
    cause = refused.value.__cause__
    assert isinstance(cause, ValueError)
    assert str(cause) == "x" * 2000
    assert cause.__notes__ == [report.problems[0].message]
    assert cause.__traceback__ is not None


def test_the_application_is_loaded_last_and_answers_first(site: Any, codes: Any) -> None:
    site.module(
        "acme",
        "import sys\nassert 'application' not in sys.modules\n" + DECLARING.format(names=["a"]),
    )
    site.module(
        "application",
        "@hookimpl\ndef corral_enqueuing(): pass\n@hookimpl\ndef corral_job_ended(): pass",
    )
    site.install("acme", "a = acme")
    plugins = site.load(application="application")
    assert codes(plugins) == []
    assert [plugin.provider.label for plugin in plugins.loaded] == [
        "acme 1.0 (wheel)",
        "application (application)",
    ]
    (implementation,) = plugins.implementations("corral_enqueuing")
    assert implementation.provider.label == "application (application)"


def test_an_application_that_is_a_plugin_already_is_loaded_once(site: Any, codes: Any) -> None:
    site.module("acme", DECLARING.format(names=["a"]))
    site.install("acme", "a = acme")
    plugins = site.load(application="acme")
    assert codes(plugins) == []
    assert [plugin.provider.label for plugin in plugins.loaded] == ["acme 1.0 (wheel)"]


def test_an_application_that_cannot_be_imported_is_reported_with_where_to_look(site: Any) -> None:
    (problem,) = site.load(application="acme_jobs").report.problems
    assert problem.message.startswith(
        "application 'acme_jobs' failed to import 'acme_jobs': ModuleNotFoundError"
    )
    assert "PYTHONPATH" in (problem.hint or "")


def test_what_is_disabled_is_not_imported(site: Any, codes: Any) -> None:
    site.module("acme", "raise AssertionError('imported')")
    site.install("acme-reports", "reports = acme", "digests = acme")
    plugins = site.load(disabled=["Acme.Reports"])
    assert codes(plugins) == []
    assert plugins.loaded == ()
    assert plugins.disabled == set(plugins.entry_points)
    assert plugins.warnings == ()
    assert site.load(disabled=["reports", "digests"]).loaded == ()
    assert "acme" not in sys.modules


def test_all_unknown_hooks_and_all_wrong_arguments_of_all_modules_are_reported(
    site: Any, codes: Any
) -> None:
    for name in ("one", "two"):
        site.module(
            name,
            "@hookimpl\ndef corral_queue(): pass\n@hookimpl\ndef corral_job_begun(): pass\n"
            "@hookimpl\ndef corral_enqueuing(queue, body): pass\n@hookimpl\n"
            "def corral_job_ended(job, *, why): pass\n",
        )
        site.install(name, f"{name} = {name}", group="corral.plugins")
    plugins = site.load()
    assert sorted(codes(plugins)) == ["hook-arguments"] * 4 + ["unknown-hook"] * 4
    hints = {problem.message: problem.hint or "" for problem in plugins.report.problems}
    misspelt = hints["plugin 'two' (two 1.0) implements the unknown hook 'corral_queue'"]
    assert misspelt.startswith("did you mean 'corral_queues'?")
    assert plugins.implementations("corral_enqueuing") == (), "a plugin with a fault is not called"


def test_fewer_arguments_and_arguments_with_a_default_are_fine(site: Any, codes: Any) -> None:
    site.module(
        "acme",
        "@hookimpl\ndef corral_enqueuing(queue, seen=None, *rest, **more): return {'x': '1'}",
    )
    site.install("acme", "acme = acme", group="corral.plugins")
    plugins = site.load()
    assert codes(plugins) == []
    assert plugins.job_hooks.enqueuing(None, None) == {"x": "1"}


OFFERING = """
import pluggy
hookspec = pluggy.HookspecMarker("corral")
class Hooks:
    @staticmethod
    @hookspec(firstresult=True)
    def acme_find(user_id): ...
@hookimpl
def corral_hookspecs(): return [Hooks]
@hookimpl(trylast=True)
def acme_find(user_id): return "default"
"""


def answers(
    plugins: Plugins, user_id: int, offering: str = "acme_offers"
) -> list[tuple[str, object]]:
    """What the implementations of `acme_find` return, with their providers, in order."""
    implementations = plugins.implementations_of(sys.modules[offering].Hooks.acme_find)
    return [(str(each.provider), each(user_id=user_id)) for each in implementations]


def test_a_plugin_offers_a_hook_and_another_answers_it(site: Any, codes: Any) -> None:
    site.module("acme_offers", OFFERING)
    site.module(
        "acme_answers",
        "@hookimpl(optionalhook=True)\ndef acme_find(user_id): return f'user {user_id}'",
    )
    site.install("zeta", "zeta = acme_offers", group="corral.plugins")
    site.install("alpha", "alpha = acme_answers", group="corral.plugins")
    plugins = site.load()
    assert codes(plugins) == []
    assert answers(plugins, 7) == [("alpha 1.0", "user 7"), ("zeta 1.0", "default")]
    assert answers(site.load(disabled=["alpha"]), 7) == [("zeta 1.0", "default")]
    with pytest.raises(LookupError, match="no loaded plugin offers the hook 'acme_find': "):
        site.load(disabled=["zeta"]).implementations_of(sys.modules["acme_offers"].Hooks.acme_find)


def test_without_its_host_an_optional_hook_is_nothing_and_a_plain_one_a_problem(
    site: Any, codes: Any
) -> None:
    site.module("acme", "@hookimpl(optionalhook=True)\ndef acme_find(user_id): pass")
    site.install("acme", "acme = acme", group="corral.plugins")
    assert codes(site.load()) == []
    site.module("other", "@hookimpl\ndef acme_find(user_id): pass")
    site.install("other", "other = other", group="corral.plugins")
    (problem,) = site.load().report.problems
    assert "@hookimpl(optionalhook=True)" in (problem.hint or "")


def test_a_hook_that_two_plugins_offer_is_a_problem_of_the_second(site: Any) -> None:
    for name in ("one", "two"):
        site.module(name, OFFERING)
        site.install(name, f"{name} = {name}", group="corral.plugins")
    (problem,) = site.load().report.problems
    assert (problem.code, problem.providers) == ("bad-hookspecs", ("two 1.0",))
    assert "acme_find" in problem.message


def test_a_wrapper_of_a_plugin_s_hook_is_refused(site: Any) -> None:
    site.module("offers", OFFERING)
    site.module("wraps", "@hookimpl(wrapper=True)\ndef acme_find(user_id): return (yield)")
    site.install("offers", "offers = offers", group="corral.plugins")
    site.install("wraps", "wraps = wraps", group="corral.plugins")
    plugins = site.load()
    (problem,) = plugins.report.problems
    assert (problem.code, problem.providers) == ("hook-wrapper", ("wraps 1.0",))
    assert problem.message == (
        "plugin 'wraps' (wraps 1.0) wraps the hook 'acme_find', which is called plugin by plugin"
    )
    assert answers(plugins, 1, "offers") == [("offers 1.0", "default")]


def test_what_a_hook_registers_is_taken_up_to_what_is_wrong_with_it(site: Any) -> None:
    site.module(
        "acme",
        "@hookimpl\ndef corral_queues():\n    yield Queue('a', P)\n    yield 'b'\n    yield P\n",
    )
    site.install("acme", "a = acme")
    report = Report()
    assert [queue.name for _, queue in site.load().ask("corral_queues", Queue, report)] == ["a"]
    (problem,) = report.problems
    assert problem.message == (
        "plugin 'a' (acme 1.0) returned ModelMetaclass, str in the list from corral_queues instead"
        " of Queue"
    )


def test_loading_twice_in_one_process_gives_two_sets_that_share_nothing(site: Any) -> None:
    site.module("acme", DECLARING.format(names=["a"]))
    site.install("acme", "a = acme")
    first, second = site.load(), site.load()
    assert first.job_hooks is not second.job_hooks
    assert first.report is not second.report
    assert first.loaded[0].module is second.loaded[0].module

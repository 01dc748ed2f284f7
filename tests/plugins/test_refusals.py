"""Every reason to refuse a catalog, each from a tiny distribution that is really installed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest

from corral import Payload
from corral.catalog.check import fingerprint
from corral.plugins import Code

LOCKED = """
[queues.report-exports]
distribution = "acme-reports"
version = "0.0.9"
fingerprint = "0123456789abcdef"
"""
GONE = """
[queues.faxes]
distribution = "acme-faxes"
version = "1.0"
fingerprint = "0123456789abcdef"
"""
PATCHED = """
form = 2
[queues.emails]
distribution = "acme-mail"
version = "2.3.0"
fingerprint = "FINGERPRINT"
"""
ABSENT = "absent"
"""Stands for a lock file that is named and is not there."""


class EmailJob(Payload):
    """As `acme-mail` has it."""


@dataclass(frozen=True)
class Case:
    """A refusal.

    Attributes:
        code: The problem's code.
        installed: The distributions, by name.
        message: What the message is, or begins with where it ends in "…".
        hint: What is in the hint.
        with_it: Codes of problems that come with it, of necessity.
        lock: The text of a lock file.
        role: What the catalog is built for; `producer` where the distribution has no processor.
        application: What `CORRAL_APP` names.
    """

    code: str
    installed: tuple[str, ...]
    message: str
    hint: str = ""
    with_it: tuple[str, ...] = ()
    lock: str | None = None
    role: str = "check"
    application: str | None = None


CASES = [
    Case(
        "application-declares",
        ("application",),
        "application 'acme_application' declares queues",
        "make a distribution of them",
        application="acme_application",
    ),
    Case(
        "bad-hookspecs",
        ("acme-bad-hookspecs",),
        "plugin 'ledgers' (acme-bad-hookspecs 0.1.0) offers hooks that cannot be used: did not"
        " find any…",
    ),
    Case(
        "bad-lock", ("corral-report-exports",), "the lock file…", "corral lock", lock="<<<<<<< ours"
    ),
    Case(
        "bad-name",
        ("acme-bad-name",),
        "queue 'Weekly.Digests' of acme-bad-name 0.1.0 is not named in kebab-case",
        "at most 64 characters",
        role="producer",
    ),
    Case(
        "bad-options",
        ("acme-bad-options",),
        "queue 'parcels' of acme-bad-options 0.1.0 has options that every job of it would be"
        " refused for: priority -1…",
        with_it=("bad-options",),
        role="producer",
    ),
    Case(
        "bad-payload",
        ("acme-bad-payload",),
        "queue 'callbacks' of acme-bad-payload 0.1.0 has a payload without a JSON schema: …",
        role="producer",
    ),
    Case(
        "bad-processor",
        ("acme-bad-processor",),
        "the processor that acme-bad-processor 0.1.0 has for queue 'arities' cannot be called with"
        " (job)",
        "async def process(job)",
        with_it=("bad-processor", "bad-processor"),
    ),
    Case(
        "bad-schedule",
        ("acme-bad-schedule",),
        "queue 'rollovers' of acme-bad-schedule 0.1.0 has a schedule that cannot be kept: '61 * *"
        " * *': …",
        role="producer",
    ),
    Case(
        "broken-metadata",
        ("acme-broken-metadata",),
        "an installed distribution whose name cannot be read declares archives ="
        " acme_broken_metadata",
        "install it again",
    ),
    Case(
        "duplicate-processor",
        ("acme-duplicate-processor",),
        "the processor that acme-duplicate-processor 0.1.0 has for queue 'transcripts' is not the"
        " only one",
        "one per queue",
    ),
    Case(
        "duplicate-queue",
        ("acme-mail", "corral-emails"),
        "queue 'emails' is provided twice: corral-emails 0.1.0 (wheel) and acme-mail 2.3.1 (wheel)",
        "uninstall one, or disable it: CORRAL_DISABLED_PLUGINS=acme-mail",
        role="producer",
    ),
    Case(
        "hook-arguments",
        ("acme-hook-arguments",),
        "plugin 'thumbnails' (acme-hook-arguments 0.1.0) implements the hook 'corral_job_ended'"
        " with arguments that it"
        " does not have: 'result'",
        "its arguments are: job, outcome",
    ),
    Case(
        "hook-raised",
        ("acme-hook-raised",),
        "plugin 'tariffs' (acme-hook-raised 0.1.0) raised in corral_queues: LookupError: no tariff"
        " for 2031",
        "CORRAL_DISABLED_PLUGINS=acme-hook-raised",
    ),
    Case(
        "hook-result",
        ("acme-hook-result",),
        "plugin 'refunds' (acme-hook-result 0.1.0) returned Queue from corral_queues instead of a"
        " list of Queue",
    ),
    Case(
        "hook-wrapper",
        ("acme-hook-wrapper",),
        "plugin 'tracing' (acme-hook-wrapper 0.1.0) wraps the hook 'corral_queues', which is"
        " called plugin by plugin",
        "implement it instead",
    ),
    Case(
        "import-error",
        ("acme-import-error",),
        "plugin 'renderings' (acme-import-error 0.1.0) failed to import 'acme_import_error':"
        " ModuleNotFoundError: No"
        " module named 'acme_missing_renderer'",
        "install what it needs, or disable it: CORRAL_DISABLED_PLUGINS=acme-import-error",
    ),
    Case(
        "lock-differs",
        ("corral-report-exports",),
        "queue 'report-exports' of corral-report-exports 0.1.0 differs from the lock file:"
        " distribution 'acme-reports'"
        " is locked and 'corral-report-exports' is installed",
        "agree to it: corral lock",
        lock=LOCKED,
    ),
    Case(
        "locked-missing",
        (),
        "queue 'faxes' is in the lock file and not installed",
        "install acme-faxes, or agree to its removal",
        lock=GONE,
    ),
    Case(
        "look-alike",
        ("acme-look-alike",),
        "these queues look alike: 'late-fees' (acme-look-alike 0.1.0 (wheel)) and 'late_fees'"
        " (acme-look-alike 0.1.0…",
        "rename one",
        with_it=("bad-name",),
        role="producer",
    ),
    Case(
        "missing-processor",
        ("acme-missing-processor",),
        "queue 'reminders' of acme-missing-processor 0.1.0 has no processor",
        "corral_processors",
    ),
    Case(
        "no-lock",
        (),
        "there is no lock file '…",
        "set CORRAL_LOCK to its path",
        lock=ABSENT,
    ),
    Case(
        "not-locked",
        ("corral-report-exports",),
        "queue 'report-exports' of corral-report-exports 0.1.0 is not in the lock file",
        "corral lock",
        lock="",
    ),
    Case(
        "nothing-registered",
        ("acme-nothing-registered",),
        "plugin 'invoices' (acme-nothing-registered 0.1.0) declares a queue that it does not"
        " register",
        "mark that with @hookimpl",
    ),
    Case(
        "patch-release",
        ("acme-mail",),
        "acme-mail 2.3.1 is a patch release of 2.3.0, which is locked, with the same payloads",
        "CORRAL_LOCK_PATCHES=allow",
        lock=PATCHED,
        role="producer",
    ),
    Case(
        "reserved-name",
        ("acme-reserved-name",),
        "queue 'worker' of acme-reserved-name 0.1.0 has a reserved name",
        "CORRAL_WORKER_",
        role="producer",
    ),
    Case(
        "shared-module",
        ("acme-shared",),
        "acme-shared-one 0.1.0 and acme-shared-two 0.1.0 both install the file …",
        "uninstall one of them and install the other again, or rename the module in one",
    ),
    Case(
        "timeout-on-def",
        ("acme-timeout-on-def",),
        "the processor that acme-timeout-on-def 0.1.0 has for queue 'renders' is a def with a"
        " timeout, and a thread…",
        "make it async def",
    ),
    Case(
        "undeclared-processor",
        ("acme-undeclared-processor",),
        "the processor that acme-undeclared-processor 0.1.0 has for queue 'imports' is for another"
        " object…",
        "import the queue from where it is declared",
    ),
    Case(
        "undeclared-queue",
        ("acme-undeclared-queue",),
        "queue 'secret-exports' is registered by acme-undeclared-queue 0.1.0, which has no entry"
        " point of that name",
        "install it again",
    ),
    Case(
        "unknown-hook",
        ("acme-unknown-hook",),
        "plugin 'greetings' (acme-unknown-hook 0.1.0) implements the unknown hook 'acme_greeted'",
        "@hookimpl(optionalhook=True)",
        with_it=("unknown-hook",),
    ),
    Case(
        "unmet-requirement",
        ("acme-unmet-requirement",),
        "acme-unmet-requirement 0.1.0 requires corral[sql]>=99, and corral 0.1.0 is installed",
        "install releases that fit together, or disable it:"
        " CORRAL_DISABLED_PLUGINS=acme-unmet-requirement",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=[case.code for case in CASES])
def test_refused(case: Case, catalogs: Any, tmp_path: Path) -> None:
    """One sentence that names the thing and its provider, a hint, and nothing else that only
    follows from it.
    """
    lock = None
    if case.lock is not None:
        lock = tmp_path / "corral.lock"
        if case.lock != ABSENT:
            lock.write_text(case.lock.replace("FINGERPRINT", fingerprint(EmailJob)), "utf-8")
    result = catalogs.build(
        *case.installed, lock=lock, role=case.role, application=case.application
    )
    (problem,) = [problem for problem in result["problems"] if problem["code"] == case.code][:1]
    begins, more, _ = case.message.partition("…")
    assert problem["message"].startswith(begins)
    assert more or problem["message"] == case.message
    assert case.hint in (problem["hint"] or "")
    assert sorted(other["code"] for other in result["problems"]) == sorted(
        (case.code, *case.with_it)
    )
    named = {f"{name} 0.1.0" for name in case.installed if name != "acme-mail"} - {
        "acme-broken-metadata 0.1.0",
        "acme-shared 0.1.0",
    }
    if case.code not in {"application-declares", "bad-lock"}:
        assert named <= set(problem["providers"])


def test_of_two_distributions_with_one_file_neither_is_imported(
    catalogs: Any, installed: Path
) -> None:
    """The file is one's, and would register its queue under the other's name."""
    result = catalogs.build("acme-shared", "corral-report-exports")
    (problem,) = result["problems"]
    assert problem["message"] == (
        "acme-shared-one 0.1.0 and acme-shared-two 0.1.0 both install the file"
        f" {installed / 'acme-shared' / 'acme_shared.py'}: the one that was installed last has"
        " overwritten the other's"
    )
    assert problem["providers"] == ["acme-shared-one 0.1.0", "acme-shared-two 0.1.0"]
    assert "acme_shared" not in result["modules"]
    result = catalogs.build("acme-shared", role="producer", disabled=("acme-shared-one",))
    assert result["queues"] == [["shared-two", "acme-shared-two 0.1.0 (wheel)", False]]


def test_a_plugin_for_another_release_of_corral_is_not_imported(catalogs: Any) -> None:
    for role in ("producer", "worker", "check"):
        result = catalogs.build("acme-unmet-requirement", "corral-report-exports", role=role)
        assert [problem["code"] for problem in result["problems"]] == ["unmet-requirement"]
        assert "acme_unmet_requirement" not in result["modules"]
    result = catalogs.build("acme-unmet-requirement", disabled=("acme-unmet-requirement",))
    assert result["problems"] == []


def test_each_processor_that_cannot_be_called_is_named_with_its_package(catalogs: Any) -> None:
    problems = catalogs.build("acme-bad-processor")["problems"]
    begin = "the processor that acme-bad-processor 0.1.0 has for queue "
    assert [problem["message"].removeprefix(begin) for problem in problems] == [
        "'arities' cannot be called with (job)",
        (
            "'resources' has `using=unmarked`, which is a generator function and makes no context"
            " manager"
        ),
        "'generators' is a generator function: calling it runs nothing",
    ]
    assert all(problem["hint"] for problem in problems)


@pytest.mark.parametrize("role", ["producer", "worker", "check"])
def test_what_would_be_lost_of_a_payload_refuses_every_start_with_its_path(
    catalogs: Any, role: str
) -> None:
    result = catalogs.build("acme-lost-payloads", role=role)
    lost = [problem for problem in result["problems"] if problem["code"] == "bad-payload"]
    begin = "of acme-lost-payloads 0.1.0 has a payload that would not reach a worker as it is: "
    assert [problem["message"].partition(begin)[2] for problem in lost] == [
        "address1: is in JSON the name of two fields, 'address_1' and 'address1'",
        "areas: has keys of the type tuple, and keys are text in JSON",
        "nonce: is required, and excluded from what is written",
        "userName: is written under this name, and read from 'login', 'user_name'",
        "people.bornOn: is a Secret that is written as a mask",
    ]
    assert all(
        problem["hint"] and problem["providers"] == ["acme-lost-payloads 0.1.0"] for problem in lost
    )


def test_every_code_has_its_case() -> None:
    assert [case.code for case in CASES] == sorted(get_args(Code))


def test_two_faults_at_once_are_in_one_report(catalogs: Any) -> None:
    result = catalogs.build("acme-import-error", "acme-hook-raised", "corral-report-exports")
    assert result["error"] == (
        "the catalog was refused: 2 problems\n"
        "  plugin 'renderings' (acme-import-error 0.1.0) failed to import 'acme_import_error':"
        " ModuleNotFoundError: No"
        " module named 'acme_missing_renderer'\n"
        "    hint: install what it needs, or disable it:"
        " CORRAL_DISABLED_PLUGINS=acme-import-error\n"
        "  plugin 'tariffs' (acme-hook-raised 0.1.0) raised in corral_queues: LookupError: no"
        " tariff for 2031\n"
        "    hint: disable it: CORRAL_DISABLED_PLUGINS=acme-hook-raised"
    )


def test_everything_that_is_wrong_with_all_of_them_is_in_one_report(catalogs: Any) -> None:
    """No fault hides another, in whatever order they are found."""
    bad = [
        name
        for case in CASES
        for name in case.installed
        if case.lock is None and case.application is None
    ]
    result = catalogs.build(*bad)
    alone = {case.code for case in CASES if case.lock is None and case.application is None}
    assert {problem["code"] for problem in result["problems"]} >= alone


def test_the_tracebacks_of_plugins_are_behind_the_report_and_whole(catalogs: Any) -> None:
    result = catalogs.build("acme-import-error", "acme-hook-raised")["traceback"]
    assert "import acme_missing_renderer" in result
    assert 'raise LookupError("no tariff for 2031")' in result
    assert (
        "plugin 'tariffs' (acme-hook-raised 0.1.0) raised in corral_queues"
        in result.partition("direct cause")[0]
    )


def test_of_two_claims_one_is_disabled_by_its_distribution_and_the_process_starts(
    catalogs: Any,
) -> None:
    result = catalogs.build("acme-mail", "corral-emails", role="producer", disabled=("acme-mail",))
    assert result["problems"] == []
    assert result["queues"] == [["emails", "corral-emails 0.1.0 (wheel)", False]]
    assert "acme_mail" not in result["modules"], "what is disabled is not imported"


def test_the_name_of_an_entry_point_disables_it_whoever_has_it(catalogs: Any) -> None:
    """To choose between two distributions, name one of them: the queue's name would disable both."""
    result = catalogs.build(
        "acme-mail", "corral-emails", "corral-report-exports", disabled=("emails",)
    )
    assert result["problems"] == []
    assert [name for name, _, _ in result["queues"]] == ["report-exports"]


def test_a_broken_plugin_is_disabled_and_the_others_start(catalogs: Any) -> None:
    result = catalogs.build(
        "acme-import-error", "corral-report-exports", disabled=("Acme_Import.Error",)
    )
    assert [name for name, _, _ in result["queues"]] == ["report-exports"]


def test_a_name_that_disables_nothing_is_a_warning_because_one_list_serves_many_processes(
    catalogs: Any,
) -> None:
    result = catalogs.build("corral-report-exports", disabled=("corral-report-export",))
    assert result["problems"] == []
    (warning,) = result["warnings"]
    assert warning == (
        "CORRAL_DISABLED_PLUGINS names 'corral-report-export', which is not installed; did you mean"
        " 'corral-report-exports'?"
    )


def test_a_sound_plugin_is_in_the_catalog_and_the_worker_has_its_processor(catalogs: Any) -> None:
    result = catalogs.build("corral-report-exports", role="worker")
    assert result["queues"] == [["report-exports", "corral-report-exports 0.1.0 (wheel)", True]]
    assert "corral_report_exports.processor" in result["modules"]


def test_a_producer_loads_no_processor_and_needs_none(catalogs: Any) -> None:
    result = catalogs.build("corral-report-exports", "acme-missing-processor", role="producer")
    assert [name for name, _, _ in result["queues"]] == ["reminders", "report-exports"]
    assert "corral_report_exports.processor" not in result["modules"]
    assert "structlog" not in result["modules"]


def test_a_worker_asks_only_those_whose_queues_it_serves(catalogs: Any) -> None:
    installed = ("corral-report-exports", "acme-missing-processor")
    result = catalogs.build(*installed, role="worker", serves=["report-exports"])
    assert result["queues"] == [
        ["reminders", "acme-missing-processor 0.1.0 (wheel)", False],
        ["report-exports", "corral-report-exports 0.1.0 (wheel)", True],
    ]
    result = catalogs.build(*installed, role="worker", serves=["reminders"])
    assert [problem["code"] for problem in result["problems"]] == ["missing-processor"]
    assert "corral_report_exports.processor" not in result["modules"]


def test_a_worker_that_is_to_serve_an_undeclared_queue_is_refused(catalogs: Any) -> None:
    result = catalogs.build("corral-report-exports", role="worker", serves=["report-export"])
    assert (
        result["error"]
        == "UnknownQueue: no queue is named 'report-export'; did you mean 'report-exports'?"
    )


def test_what_a_lock_file_misses_matters_to_check_alone(catalogs: Any, tmp_path: Path) -> None:
    """A worker that has one of six plugins installed shares the lock file of all; `corral check`
    asks for the set.
    """
    lock = tmp_path / "corral.lock"
    lock.write_text(GONE, "utf-8")
    assert catalogs.build(role="producer", lock=lock)["problems"] == []
    assert catalogs.build(role="worker", lock=lock)["problems"] == []
    assert [problem["code"] for problem in catalogs.build(role="check", lock=lock)["problems"]] == [
        "locked-missing"
    ]


def test_disabling_is_a_decision_and_the_lock_file_does_not_object(
    catalogs: Any, tmp_path: Path
) -> None:
    lock = tmp_path / "corral.lock"
    lock.write_text(LOCKED, "utf-8")
    result = catalogs.build("corral-report-exports", lock=lock, disabled=("corral-report-exports",))
    assert result["problems"] == []
    assert result["locked"]

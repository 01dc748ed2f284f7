"""`Plugins`: imports what entry points name, registers their hooks, and asks the hooks that
register things.

One at a time, so that each fault is told with the name of whoever made it, and none hides another.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, Final, TypeVar, cast

from importlib_metadata import EntryPoint
from pluggy import HookCaller, HookimplOpts, HookRelay, PluginManager, PluginValidationError

from corral import hookspecs
from corral.plugins.entry_points import (
    APPLICATION,
    BUILT_IN,
    PLUGINS,
    Broken,
    Claim,
    Provider,
    canonical,
    found,
)
from corral.plugins.printing import stdout_turned
from corral.plugins.relay import RAISED, Implementation, Relay
from corral.plugins.report import Code, Report, disabling, summary

__all__ = ["Plugin", "Plugins"]

OWN: Final = Provider("corral", "", BUILT_IN)
"""Who provides what is no plugin but Corral's own."""
CORE_HOOKS: Final = frozenset(name for name in vars(hookspecs) if name.startswith("corral_"))

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Plugin:
    """A loaded module, however many entry points name it.

    Attributes:
        module: What the entry points led to: a module, or an object in one.
        claims: The entry points, at least one.
        hooks: The names of the hooks it implements.
    """

    module: object
    claims: tuple[Claim, ...]
    hooks: tuple[str, ...]

    @property
    def provider(self) -> Provider:
        """The distribution that brings it."""
        return self.claims[0].provider


@dataclass(frozen=True, slots=True, eq=False)
class Plugins:
    """The plugins of one process.

    Attributes:
        claims: Every entry point that was found in our groups, those of disabled plugins included.
        disabled: Those of `claims` that are disabled.
        loaded: What was imported, in order; the application last.
        hook: Calls hooks that plugins offer: `hook.acme_find_user(user_id=…)`.
        relay: Calls the subscribers of the hooks that run with every job.
        warnings: What is odd, and no reason to refuse the start; sentences.
        report: What is wrong so far.
    """

    claims: tuple[Claim, ...]
    disabled: frozenset[Claim]
    loaded: tuple[Plugin, ...]
    hook: HookRelay
    relay: Relay
    warnings: tuple[str, ...]
    report: Report
    _implementations: Mapping[str, tuple[Implementation, ...]]

    @classmethod
    def load(
        cls,
        claims: Iterable[Claim | Broken] | None = None,
        *,
        application: str | None = None,
        disabled: Iterable[str] = (),
        check: Callable[[Iterable[Claim], Report], None] | None = None,
    ) -> Plugins:
        """Find, import and register.

        Nothing that a plugin does wrong is raised: it is in the report.

        What they print meanwhile goes to stderr: stdout may be data.

        Args:
            claims: What to load instead of what is installed, as from `found`.
            application: The module that `CORRAL_APP` names. It is loaded last and may implement
                hooks, but declares no queues.
            disabled: What `CORRAL_DISABLED_PLUGINS` names: a distribution, or entry points of that
                name, whoever has them.
            check: Looks at the names of what is to be imported, before anything is. Entry points
                that it makes `faulty` are not imported.
        """
        with stdout_turned():
            return cls._load(claims, application, disabled, check)

    @classmethod
    def _load(
        cls,
        claims: Iterable[Claim | Broken] | None,
        application: str | None,
        disabled: Iterable[str],
        check: Callable[[Iterable[Claim], Report], None] | None,
    ) -> Plugins:
        report = Report()
        names = {canonical(name): name for name in disabled}
        installed = tuple(_readable(found() if claims is None else claims, names, report))
        off = frozenset(
            claim for claim in installed if not names.keys().isdisjoint(_names_of(claim))
        )
        wanted = [claim for claim in installed if claim not in off]
        if application:
            wanted.append(
                Claim(
                    application, application, APPLICATION, Provider(application, "", "application")
                )
            )
        if check is not None:
            check(wanted, report)
            wanted = [claim for claim in wanted if claim not in report.faulty]

        manager = PluginManager("corral")
        manager.add_hookspecs(hookspecs)
        loaded = [
            Plugin(
                module, naming, tuple(sorted(hook for hook, _, _ in _implemented(manager, module)))
            )
            for module, naming in _imported(wanted, report)
        ]
        for plugin in loaded:
            _add_hookspecs(manager, plugin, report)
        registered = {
            id(plugin.module): plugin.claims
            for plugin in loaded
            if _register(manager, plugin, report)
        }
        implementations = {
            caller.name: tuple(
                Implementation(
                    caller.name, registered[id(made.plugin)], made.function, made.argnames
                )
                for made in reversed(
                    caller.get_hookimpls()
                )  # the order in which pluggy would call them
            )
            for caller in _specified(manager)
        }
        return cls(
            claims=installed,
            disabled=off,
            loaded=tuple(loaded),
            hook=manager.hook,
            relay=Relay(implementations),
            warnings=tuple(_unmatched(names, installed)),
            report=report,
            _implementations=implementations,
        )

    def with_own(self, *subscribers: object) -> Plugins:
        """These plugins, and parts of Corral itself that subscribe to the core's hooks.

        They are called before everybody else's: what they measure or open encloses it.

        Args:
            subscribers: Objects with methods that are marked with `hookimpl`.
        """
        manager, joined = PluginManager("corral"), dict(self._implementations)
        for subscriber in subscribers:
            claims = (Claim(type(subscriber).__name__, type(subscriber).__module__, PLUGINS, OWN),)
            for hook, _, function in _implemented(manager, subscriber):
                own = Implementation(
                    hook, claims, function, tuple(inspect.signature(function).parameters)
                )
                joined[hook] = (own, *joined.get(hook, ()))
        return replace(self, relay=Relay(joined), _implementations=joined)

    def implementations(self, hook: str) -> tuple[Implementation, ...]:
        """Who answers a hook, in the order in which they are called; nobody answers one that nobody
        offers.
        """
        return self._implementations.get(hook, ())

    def ask(
        self, hook: str, kind: type[T], report: Report, *, only: Collection[str] | None = None
    ) -> Iterator[tuple[Provider, T]]:
        """Call a hook that registers things, one implementation at a time.

        Args:
            hook: A hook without arguments that returns an iterable.
            kind: What the iterable holds.
            report: Gets what goes wrong.
            only: Names of the distributions to ask, or None for all.

        Yields:
            What was registered, with who did.
        """
        for implementation in self.implementations(hook):
            if only is None or implementation.provider.distribution in only:
                for item in _answer(implementation.claims, hook, implementation, kind, report):
                    yield implementation.provider, item


def _readable(
    claims: Iterable[Claim | Broken], disabled: Container[str], report: Report
) -> Iterator[Claim]:
    for one in claims:
        if isinstance(one, Claim):
            yield one
        elif one.provider is None:
            report.add(
                "broken-metadata", one.told, hint="install it again, or remove its dist-info folder"
            )
        elif canonical(one.provider.distribution) not in disabled:
            hint = f"install it again, or {disabling([one.provider])}"
            report.add("broken-metadata", one.told, [one.provider], hint=hint)


def _names_of(claim: Claim) -> set[str]:
    return {canonical(claim.name), canonical(claim.provider.distribution)}


def _unmatched(disabled: Mapping[str, str], claims: Iterable[Claim]) -> Iterator[str]:
    """A warning for each name that disables nothing: one list may be shared by processes that
    differ in plugins.
    """
    known = {name for claim in claims for name in _names_of(claim)}
    for name, as_written in disabled.items():
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            meant = f"; did you mean {close[0]!r}?" if close else ""
            yield f"CORRAL_DISABLED_PLUGINS names {as_written!r}, which is not installed{meant}"


def _imported(claims: Iterable[Claim], report: Report) -> list[tuple[object, tuple[Claim, ...]]]:
    """Each module once, with all entry points that lead to it."""
    by_value: dict[str, list[Claim]] = {}
    for claim in claims:
        by_value.setdefault(claim.value, []).append(claim)
    modules: dict[int, tuple[object, tuple[Claim, ...]]] = {}
    for value, naming in by_value.items():
        try:
            module = EntryPoint(naming[0].name, value, naming[0].group).load()
        except RAISED as error:
            hint = "install what it needs" if isinstance(error, ImportError) else None
            if naming[0].group == APPLICATION:
                hint = "CORRAL_APP names a module that Python finds: is its folder on PYTHONPATH?"
            report.blame(
                "import-error",
                naming,
                f"failed to import {value!r}: {summary(error)}",
                hint=hint,
                cause=error,
            )
            continue
        _, before = modules.get(id(module), (module, ()))
        modules[id(module)] = (module, (*before, *naming))
    return list(modules.values())


def _implemented(
    manager: PluginManager, module: object
) -> Iterator[tuple[str, HookimplOpts, Callable[..., Any]]]:
    for attribute in dir(module):
        options = manager.parse_hookimpl_opts(module, attribute)
        if options is not None:
            yield options.get("specname") or attribute, options, getattr(module, attribute)


def _specified(manager: PluginManager) -> list[HookCaller]:
    return [
        caller
        for caller in vars(manager.hook).values()
        if isinstance(caller, HookCaller) and caller.has_spec()
    ]


def _add_hookspecs(manager: PluginManager, plugin: Plugin, report: Report) -> None:
    """Make the hooks known that a plugin offers: before anybody's implementations are looked at."""
    for hook, options, function in _implemented(manager, plugin.module):
        if hook != "corral_hookspecs" or _fault(manager, hook, options, function):
            continue
        for namespace in _answer(plugin.claims, hook, function, object, report):
            try:
                manager.add_hookspecs(cast("ModuleType", namespace))  # pluggy takes any object
            except ValueError as error:  # no hook in it, or one that exists
                report.blame(
                    "bad-hookspecs", plugin.claims, f"offers hooks that cannot be used: {error}"
                )


def _register(manager: PluginManager, plugin: Plugin, report: Report) -> bool:
    """Register a module if all its hooks can be called; pluggy itself stops at the first that
    cannot.
    """
    faults = [
        fault
        for hook, options, function in _implemented(manager, plugin.module)
        if (fault := _fault(manager, hook, options, function))
    ]
    for code, message, hint in faults:
        report.blame(code, plugin.claims, message, hint=hint)
    if "corral_queues" in plugin.hooks and plugin.claims[0].group == APPLICATION:
        hint = (
            "make a distribution of them, with an entry point in the group corral.queues for each"
        )
        report.blame("application-declares", plugin.claims, "declares queues", hint=hint)
        return False
    if faults:
        return False
    try:
        manager.register(plugin.module, plugin.claims[0].value)
    except PluginValidationError as error:
        report.blame(
            "hook-wrapper",
            plugin.claims,
            f"has a hook that cannot be called: {str(error).splitlines()[-1]}",
        )
        if manager.is_registered(
            plugin.module
        ):  # pluggy up to 1.6 leaves what it refused registered
            manager.unregister(plugin.module)
        return False
    return True


def _fault(
    manager: PluginManager, hook: str, options: HookimplOpts, function: Callable[..., Any]
) -> tuple[Code, str, str | None] | None:
    """Why an implementation cannot be called, as a problem's code, message and hint."""
    caller = getattr(manager.hook, hook, None)
    if caller is None or caller.spec is None:
        if options.get("optionalhook"):
            return None
        close = difflib.get_close_matches(hook, [known.name for known in _specified(manager)], n=1)
        meant = f"did you mean {close[0]!r}? " if close else ""
        hint = f"{meant}a hook that another plugin offers is marked @hookimpl(optionalhook=True)"
        return "unknown-hook", f"implements the unknown hook {hook!r}", hint
    if hook in CORE_HOOKS and (options.get("wrapper") or options.get("hookwrapper")):
        return (
            "hook-wrapper",
            f"wraps the hook {hook!r}, which is called plugin by plugin",
            "implement it instead",
        )
    given = {*caller.spec.argnames, *caller.spec.kwargnames}
    wrong = [
        parameter.name
        for parameter in inspect.signature(function).parameters.values()
        if parameter.name not in given
        and parameter.default is parameter.empty
        and parameter.kind not in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}
    ]
    if wrong:
        told = ", ".join(map(repr, wrong))
        hint = (
            f"its arguments are: {', '.join(caller.spec.argnames)}"
            if given
            else "it takes no arguments"
        )
        return (
            "hook-arguments",
            f"implements the hook {hook!r} with arguments that it does not have: {told}",
            hint,
        )
    return None


def _answer(
    claims: tuple[Claim, ...],
    hook: str,
    function: Callable[[], object],
    kind: type[T],
    report: Report,
) -> list[T]:
    """What one implementation registers; what it should not have registered is a problem, and left
    out.
    """
    try:
        with stdout_turned():
            result = function()
            items = list(result) if isinstance(result, Iterable) else None
    except RAISED as error:
        report.blame("hook-raised", claims, f"raised in {hook}: {summary(error)}", cause=error)
        return []
    if items is None:
        told = type(result).__name__
        report.blame(
            "hook-result",
            claims,
            f"returned {told} from {hook} instead of a list of {kind.__name__}",
        )
        return []
    wrong = sorted({type(item).__name__ for item in items if not isinstance(item, kind)})
    if wrong:
        told = ", ".join(wrong)
        report.blame(
            "hook-result",
            claims,
            f"returned {told} in the list from {hook} instead of {kind.__name__}",
        )
    return [item for item in items if isinstance(item, kind)]

"""`Plugins`: imports the modules that entry points name, and registers and calls their hooks.

Each plugin is handled on its own, so that every problem is reported with the name of the plugin
that caused it, and none hides another.
"""

from __future__ import annotations

import difflib
import inspect
import time
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, Final, NamedTuple, TypeVar, cast

from importlib_metadata import EntryPoint, version
from pluggy import HookCaller, HookimplOpts, PluginManager, PluginValidationError

from corral import hookspecs
from corral.plugins.built_in import built_in_plugins
from corral.plugins.entry_points import (
    APPLICATION,
    BUILT_IN,
    PLUGINS,
    PluginEntryPoint,
    Provider,
    UnreadableDistribution,
    canonical_name,
    read_entry_points,
)
from corral.plugins.job_hooks import PLUGIN_ERRORS, Implementation, JobHooks
from corral.plugins.printing import stdout_to_stderr
from corral.plugins.provenance import report_shared_modules
from corral.plugins.report import Code, Report, disable_hint, error_summary, subject_of
from corral.plugins.requirements import find_unmet

__all__ = ["Plugin", "Plugins"]

CORE: Final = Provider("corral", "", BUILT_IN)
"""The provider of hook implementations that are part of Corral and no plugin."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Plugin:
    """A loaded module, however many entry points name it.

    Attributes:
        module: The object that the entry points name: a module, or an attribute of one.
        entry_points: The entry points, at least one.
        hooks: The names of the hooks it implements.
        import_seconds: How long its import took, with what it was the first to import.
    """

    module: object
    entry_points: tuple[PluginEntryPoint, ...]
    hooks: tuple[str, ...]
    import_seconds: float = 0.0

    @property
    def provider(self) -> Provider:
        """The distribution that provides the plugin."""
        return self.entry_points[0].provider


class _Imported(NamedTuple):
    """A module that was imported, as in `Plugin`."""

    module: object
    entry_points: tuple[PluginEntryPoint, ...]
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Plugins:
    """The plugins of one process.

    Attributes:
        entry_points: Every entry point in our groups, those of disabled plugins included.
        disabled: Those of `entry_points` that are disabled.
        loaded: The imported plugins, in order; the application is the last.
        job_hooks: Calls the hooks that run with every job.
        warnings: Sentences about what looks wrong and does not refuse the start.
        report: The problems that were found so far.
    """

    entry_points: tuple[PluginEntryPoint, ...]
    disabled: frozenset[PluginEntryPoint]
    loaded: tuple[Plugin, ...]
    job_hooks: JobHooks
    warnings: tuple[str, ...]
    report: Report
    _implementations: Mapping[str, tuple[Implementation, ...]]

    @classmethod
    def load(
        cls,
        entry_points: Iterable[PluginEntryPoint | UnreadableDistribution] | None = None,
        *,
        application: str | None = None,
        disabled: Iterable[str] = (),
        check: Callable[[Iterable[PluginEntryPoint], Report], None] | None = None,
    ) -> Plugins:
        """Import plugins and register their hooks.

        Nothing that a plugin does wrong is raised: it is in the report. What plugins print while
        they are loaded goes to stderr, because stdout may be data.

        Args:
            entry_points: What to load. None: what is installed, and the core's built-in plugins.
            application: The module that `CORRAL_APP` names. It is loaded last and may implement
                hooks, but declares no queues.
            disabled: The names in `CORRAL_DISABLED_PLUGINS`: a distribution, or entry points of
                that name in any distribution.
            check: Called with the entry points before any is imported. Those that it adds to
                `report.faulty` are not imported.
        """
        if entry_points is None:
            entry_points = [*read_entry_points(), *built_in_plugins()]
        with stdout_to_stderr():
            return cls._load(entry_points, application, disabled, check)

    @classmethod
    def _load(
        cls,
        entry_points: Iterable[PluginEntryPoint | UnreadableDistribution],
        application: str | None,
        disabled: Iterable[str],
        check: Callable[[Iterable[PluginEntryPoint], Report], None] | None,
    ) -> Plugins:
        report = Report()
        names = {canonical_name(name): name for name in disabled}
        installed = tuple(_report_unreadable(entry_points, names, report))
        off = frozenset(each for each in installed if not names.keys().isdisjoint(_names_of(each)))
        wanted = [each for each in installed if each not in off]
        if application:
            provider = Provider(application, "", "application")
            wanted.append(PluginEntryPoint(application, application, APPLICATION, provider))
        if check is not None:
            check(wanted, report)
            wanted = [each for each in wanted if each not in report.faulty]
        _report_unmet(wanted, report)
        report_shared_modules([each for each in wanted if each not in report.faulty], report)
        wanted = [each for each in wanted if each not in report.faulty]
        return cls._register_all(
            _import_modules(wanted, report),
            report,
            entry_points=installed,
            disabled=off,
            warnings=tuple(_warn_of_unknown_names(names, installed)),
        )

    @classmethod
    def of_modules(cls, modules: Mapping[str, object]) -> Plugins:
        """Plugins of modules that are imported already and that no entry point names; for tests.

        The core's built-in plugins are among them.

        Args:
            modules: The modules by name, in the order in which they are registered: the hooks of
                the last one are called first. Any object with functions that are marked with
                `hookimpl` will do.

        Raises:
            CatalogError: A module has a hook that cannot be called.
        """
        report = Report()
        imported = _import_modules(built_in_plugins(), report)
        for name, module in modules.items():
            provider = Provider(name, "", "application")
            named = (PluginEntryPoint(name, name, PLUGINS, provider),)
            imported.append(_Imported(module, named))
        with stdout_to_stderr():
            plugins = cls._register_all(imported, report)
        report.raise_problems()
        return plugins

    @classmethod
    def _register_all(
        cls,
        modules: Iterable[_Imported],
        report: Report,
        *,
        entry_points: tuple[PluginEntryPoint, ...] = (),
        disabled: frozenset[PluginEntryPoint] = frozenset(),
        warnings: tuple[str, ...] = (),
    ) -> Plugins:
        """Register modules: first the hooks that they offer, then their implementations."""
        manager = PluginManager("corral")
        manager.add_hookspecs(hookspecs)
        loaded = [
            Plugin(
                each.module,
                each.entry_points,
                tuple(sorted(hook for hook, _, _ in _marked_hooks(manager, each.module))),
                each.seconds,
            )
            for each in modules
        ]
        for plugin in loaded:
            _add_hookspecs(manager, plugin, report)
        registered = {
            id(plugin.module): plugin.entry_points
            for plugin in loaded
            if _register(manager, plugin, report)
        }
        implementations = {
            caller.name: tuple(
                Implementation(
                    caller.name, registered[id(made.plugin)], made.function, made.argnames
                )
                # reversed: the order in which pluggy would call them
                for made in reversed(caller.get_hookimpls())
            )
            for caller in _offered_hooks(manager)
        }
        return cls(
            entry_points=entry_points,
            disabled=disabled,
            loaded=tuple(loaded),
            job_hooks=JobHooks(implementations),
            warnings=warnings,
            report=report,
            _implementations=implementations,
        )

    def with_own(self, *subscribers: object) -> Plugins:
        """These plugins, and parts of Corral itself that implement the core's hooks.

        Those are called before the plugins, so that what they measure or open encloses the plugins.

        Args:
            subscribers: Objects with methods that are marked with `hookimpl`.
        """
        manager, joined = PluginManager("corral"), dict(self._implementations)
        for subscriber in subscribers:
            kind = type(subscriber)
            named = (PluginEntryPoint(kind.__name__, kind.__module__, PLUGINS, CORE),)
            for hook, _, function in _marked_hooks(manager, subscriber):
                arguments = tuple(inspect.signature(function).parameters)
                own = Implementation(hook, named, function, arguments)
                joined[hook] = (own, *joined.get(hook, ()))
        return replace(self, job_hooks=JobHooks(joined), _implementations=joined)

    def find_slow_imports(self, least_seconds: float) -> Iterator[str]:
        """Find plugins whose import took long.

        Args:
            least_seconds: What counts as long.

        Yields:
            A warning for each, with its time.
        """
        for plugin in self.loaded:
            if plugin.import_seconds > least_seconds:
                yield (
                    f"{subject_of(plugin.entry_points)} took {plugin.import_seconds:.1f} s to"
                    " import: every process that loads it starts so much later"
                )

    def implementations(self, hook: str) -> tuple[Implementation, ...]:
        """The implementations of a hook, in the order in which they are called.

        None for a hook that no loaded plugin offers.
        """
        return self._implementations.get(hook, ())

    def implementations_of(self, spec: Callable[..., Any]) -> tuple[Implementation, ...]:
        """The implementations of a plugin's hook, in the order in which they are called.

        Args:
            spec: The hook's specification: the function that is marked with `hookspec`.

        Raises:
            LookupError: No loaded plugin offers the hook.
        """
        implementations = self._implementations.get(spec.__name__)
        if implementations is None:
            raise LookupError(
                f"no loaded plugin offers the hook {spec.__name__!r}: the plugin that defines it"
                " returns the module of its hook specifications from corral_hookspecs"
            )
        return implementations

    def ask(
        self, hook: str, kind: type[T], report: Report, *, only: Collection[str] | None = None
    ) -> Iterator[tuple[Provider, T]]:
        """Call a hook that registers things, one implementation at a time.

        Args:
            hook: A hook without arguments that returns an iterable.
            kind: The type of the iterable's items.
            report: Gets the problems.
            only: Names of the distributions to ask, or None for all.

        Yields:
            Each registered item, with its provider.
        """
        for implementation in self.implementations(hook):
            if only is None or implementation.provider.distribution in only:
                named = implementation.entry_points
                for item in _call_registering(named, hook, implementation, kind, report):
                    yield implementation.provider, item


def _report_unreadable(
    entry_points: Iterable[PluginEntryPoint | UnreadableDistribution],
    disabled: Container[str],
    report: Report,
) -> Iterator[PluginEntryPoint]:
    """Yield the entry points; report unreadable distributions that are not disabled."""
    for each in entry_points:
        if isinstance(each, PluginEntryPoint):
            yield each
        elif each.provider is None:
            hint = "install it again, or remove its dist-info folder"
            report.add("broken-metadata", each.problem, hint=hint)
        elif canonical_name(each.provider.distribution) not in disabled:
            hint = f"install it again, or {disable_hint([each.provider])}"
            report.add("broken-metadata", each.problem, [each.provider], hint=hint)


def _names_of(entry_point: PluginEntryPoint) -> set[str]:
    """The names by which a plugin can be disabled."""
    return {canonical_name(entry_point.name), canonical_name(entry_point.provider.distribution)}


def _warn_of_unknown_names(
    disabled: Mapping[str, str], entry_points: Iterable[PluginEntryPoint]
) -> Iterator[str]:
    """A warning for each name that disables nothing.

    That is no error: processes with different plugins may share one setting.
    """
    known = {name for each in entry_points for name in _names_of(each)}
    for name, as_written in disabled.items():
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            yield f"CORRAL_DISABLED_PLUGINS names {as_written!r}, which is not installed{hint}"


def _report_unmet(entry_points: Sequence[PluginEntryPoint], report: Report) -> None:
    """Report distributions that require another release of Corral; they are not imported."""
    asking: dict[Provider, list[PluginEntryPoint]] = {}
    for each in entry_points:
        if each.requires:
            asking.setdefault(each.provider, []).append(each)
    if not asking:
        return
    # read once for the core's own plugins; tests load others without them
    installed = next(
        (each.provider.version for each in entry_points if each.provider.origin == BUILT_IN), None
    ) or version("corral")
    for provider, plugins in asking.items():
        if unmet := find_unmet(plugins[0].requires, installed):
            report.add(
                "unmet-requirement",
                f"{provider} requires {unmet}, and corral {installed} is installed",
                [provider],
                hint=f"install releases that fit together, or {disable_hint([provider])}",
            )
            report.faulty.update(plugins)


def _import_modules(entry_points: Iterable[PluginEntryPoint], report: Report) -> list[_Imported]:
    """Import each module once; returns it with all entry points that name it."""
    by_value: dict[str, list[PluginEntryPoint]] = {}
    for each in entry_points:
        by_value.setdefault(each.value, []).append(each)
    modules: dict[int, _Imported] = {}
    for value, naming in by_value.items():
        began = time.perf_counter()
        try:
            module = EntryPoint(naming[0].name, value, naming[0].group).load()
        except PLUGIN_ERRORS as error:
            hint = "install what it needs" if isinstance(error, ImportError) else None
            if naming[0].group == APPLICATION:
                hint = "CORRAL_APP names a module that Python finds: is its folder on PYTHONPATH?"
            message = f"failed to import {value!r}: {error_summary(error)}"
            report.add_for_plugin("import-error", naming, message, hint=hint, cause=error)
            continue
        seconds = time.perf_counter() - began
        _, before, earlier = modules.get(id(module), _Imported(module, ()))
        modules[id(module)] = _Imported(module, (*before, *naming), earlier + seconds)
    return list(modules.values())


def _marked_hooks(
    manager: PluginManager, module: object
) -> Iterator[tuple[str, HookimplOpts, Callable[..., Any]]]:
    """The attributes of a module that are marked with `hookimpl`: hook, options and function."""
    for attribute in dir(module):
        options = manager.parse_hookimpl_opts(module, attribute)
        if options is not None:
            yield options.get("specname") or attribute, options, getattr(module, attribute)


def _offered_hooks(manager: PluginManager) -> list[HookCaller]:
    """The hooks that have a specification: the core's, and those that plugins offer."""
    return [
        caller
        for caller in vars(manager.hook).values()
        if isinstance(caller, HookCaller) and caller.has_spec()
    ]


def _add_hookspecs(manager: PluginManager, plugin: Plugin, report: Report) -> None:
    """Add the hooks that a plugin offers.

    Called for all plugins before the implementations of any are checked.
    """
    for hook, options, function in _marked_hooks(manager, plugin.module):
        if hook != "corral_hookspecs" or _fault(manager, hook, options, function):
            continue
        for namespace in _call_registering(plugin.entry_points, hook, function, object, report):
            try:
                manager.add_hookspecs(cast("ModuleType", namespace))  # pluggy takes any object
            except ValueError as error:  # it holds no hook, or one that exists already
                message = f"offers hooks that cannot be used: {error}"
                report.add_for_plugin("bad-hookspecs", plugin.entry_points, message)


def _register(manager: PluginManager, plugin: Plugin, report: Report) -> bool:
    """Register a plugin's hooks if all of them can be called.

    All are checked here: pluggy would stop at the first that cannot be called.

    Returns:
        Whether the plugin is registered.
    """
    faults = [
        fault
        for hook, options, function in _marked_hooks(manager, plugin.module)
        if (fault := _fault(manager, hook, options, function))
    ]
    for code, message, hint in faults:
        report.add_for_plugin(code, plugin.entry_points, message, hint=hint)
    if "corral_queues" in plugin.hooks and plugin.entry_points[0].group == APPLICATION:
        hint = (
            "make a distribution of them, with an entry point in the group corral.queues for each"
        )
        report.add_for_plugin(
            "application-declares", plugin.entry_points, "declares queues", hint=hint
        )
        return False
    if faults:
        return False
    try:
        manager.register(plugin.module, plugin.entry_points[0].value)
    # pluggy before 1.7: it takes an argument for which the hook has a default
    except PluginValidationError as error:
        message = f"has a hook that cannot be called: {str(error).splitlines()[-1]}"
        report.add_for_plugin("hook-arguments", plugin.entry_points, message)
        # pluggy up to 1.6 leaves a plugin registered that it refused
        if manager.is_registered(plugin.module):
            manager.unregister(plugin.module)
        return False
    return True


def _fault(
    manager: PluginManager, hook: str, options: HookimplOpts, function: Callable[..., Any]
) -> tuple[Code, str, str | None] | None:
    """Why an implementation cannot be called: a problem's code, message and hint; else None."""
    caller = getattr(manager.hook, hook, None)
    if caller is None or caller.spec is None:
        if options.get("optionalhook"):
            return None
        known = [offered.name for offered in _offered_hooks(manager)]
        close = difflib.get_close_matches(hook, known, n=1)
        suggestion = f"did you mean {close[0]!r}? " if close else ""
        hint = (
            f"{suggestion}a hook that another plugin offers is marked @hookimpl(optionalhook=True)"
        )
        return "unknown-hook", f"implements the unknown hook {hook!r}", hint
    if options.get("wrapper") or options.get("hookwrapper"):
        message = f"wraps the hook {hook!r}, which is called plugin by plugin"
        return "hook-wrapper", message, "implement it instead"
    arguments = {*caller.spec.argnames, *caller.spec.kwargnames}
    wrong = [
        parameter.name
        for parameter in inspect.signature(function).parameters.values()
        if parameter.name not in arguments
        and parameter.default is parameter.empty
        and parameter.kind not in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}
    ]
    if wrong:
        names = ", ".join(map(repr, wrong))
        message = f"implements the hook {hook!r} with arguments that it does not have: {names}"
        hint = (
            f"its arguments are: {', '.join(caller.spec.argnames)}"
            if arguments
            else "it takes no arguments"
        )
        return "hook-arguments", message, hint
    return None


def _call_registering(
    entry_points: tuple[PluginEntryPoint, ...],
    hook: str,
    function: Callable[[], object],
    kind: type[T],
    report: Report,
) -> list[T]:
    """Call one implementation of a hook that registers things.

    Returns:
        The items of the right type; the others are reported as a problem.
    """
    try:
        with stdout_to_stderr():
            result = function()
            items = list(result) if isinstance(result, Iterable) else None
    except PLUGIN_ERRORS as error:
        message = f"raised in {hook}: {error_summary(error)}"
        report.add_for_plugin("hook-raised", entry_points, message, cause=error)
        return []
    if items is None:
        found = type(result).__name__
        message = f"returned {found} from {hook} instead of a list of {kind.__name__}"
        report.add_for_plugin("hook-result", entry_points, message)
        return []
    wrong = sorted({type(item).__name__ for item in items if not isinstance(item, kind)})
    if wrong:
        found = ", ".join(wrong)
        message = f"returned {found} in the list from {hook} instead of {kind.__name__}"
        report.add_for_plugin("hook-result", entry_points, message)
    return [item for item in items if isinstance(item, kind)]

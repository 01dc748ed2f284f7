"""How a process of Corral's ends: the one place that handles SIGTERM and Ctrl-C, and that bounds
every end.

A thread reads the signals, so that they count although the main thread is busy in an import, in a
processor that blocks the event loop, or in C code that lets no handler run. The same thread has the
clock: what has not ended in its time is cut off. It calls nothing that could block; what could,
runs on threads of its own.

It knows no command, no store and no logs. A command says by `on_stop` what there is to stop, and
ends by `leave`. Signals are handled before anything else is imported, `typing`, `contextlib` and
`threading` included: those take longer than Python's own start.
"""

from __future__ import annotations

import _thread
import atexit
import os
import select
import signal
import sys
import time
from functools import partial  # `signal` has loaded it

TYPE_CHECKING = False  # as checkers read it without `typing`
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Final, NoReturn

__all__ = [
    "CUT_EXIT_CODE",
    "SIGNALS",
    "Demand",
    "StopRequested",
    "ask_to_hurry",
    "ask_to_stop",
    "begin_service",
    "is_listening",
    "is_stopped_early",
    "leave",
    "listen",
    "on_stop",
    "settle",
    "stop_code",
    "stop_listening",
]

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
HURRY, EXIT_AT_ONCE = 2, 3
"""The second signal hurries, the third ends the process."""
GRACE_SECONDS: Final = 0.6
"""How long after its timeout a stopping command may take to interrupt what runs, and to write that.
With `EXIT_SECONDS` it is less than the 2 s that are promised: the rest is for a machine that is
busy.
"""
ANNOUNCE_SECONDS: Final = 0.05
"""How long stopping is put off so that it is announced first: a log that nobody reads may block."""
START_SECONDS: Final = 0.6
"""How long a command that is stopped before it serves may take to leave what it has entered."""
HURRY_SECONDS: Final = 0.7
"""The same after the second signal. Jobs are promised to be handed back 1 s after it."""
EXIT_SECONDS: Final = 1.0
"""How long the exit handlers have: a tracer and an error tracker send what they hold."""
UNASKED_EXIT_SECONDS: Final = 10.0
"""How long they have where nobody waits: the command has ended by itself."""
CUT_EXIT_CODE: Final = 5
"""The exit code of a command that was cut off; see `corral.cli`."""


class StopRequested(KeyboardInterrupt):
    """Raised in the main thread by a signal that comes before there is anything to stop in order.

    A `KeyboardInterrupt`, because that is what other people's code lets through; a plugin's
    `SystemExit` is reported.
    """


def _nothing() -> None:
    pass


class Demand:
    """What a command does when it is told to stop.

    Each function is called from any thread, at most once.

    Args:
        timeout_seconds: How long it may take, before what it needs to interrupt what is left.
        stop: Stops in order. Must not block.
        announce: Says what is waited for, and what a second signal does.
        hurry: Waits no longer for what runs. Must not block.
        cut: Saves what can be saved when the time is over, beside the exit handlers, within
            `EXIT_SECONDS`. The main thread may hang.
    """

    def __init__(
        self,
        timeout_seconds: float,
        *,
        stop: Callable[[], object],
        announce: Callable[[], object] = _nothing,
        hurry: Callable[[], object] = _nothing,
        cut: Callable[[], object] = _nothing,
    ) -> None:
        self.timeout_seconds = timeout_seconds
        self.stop = stop
        self.announce = announce
        self.hurry = hurry
        self.cut = cut


class _Shutdown:
    """The process's end. There is one: signals are the process's."""

    def __init__(self) -> None:
        self._pipe: tuple[int, int] | None = None
        self._owns_process = False
        self._guard = _thread.allocate_lock()
        self._forget()

    def _forget(self) -> None:
        self._received = 0  # signals
        self._level = 0  # what they demand, or a parent does
        self._own = 0  # signals of this process to itself, which only interrupt the main thread
        self._number: int = signal.SIGINT
        self._demand: Demand | None = None
        self._is_service = self._is_past_start = False
        self._settled: int | None = None
        self._deadline: float | None = None
        self._is_ending = False  # the exit handlers run: nothing comes after the deadline
        self._raised = False

    def listen(self) -> None:
        if self._pipe is not None:
            return
        pipe = os.pipe()
        for end in pipe:
            os.set_blocking(end, False)
        self._pipe = pipe
        signal.set_wakeup_fd(pipe[1], warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, self._handle)
        _thread.start_new_thread(self._read, pipe)  # of `threading`: see above

    @property
    def is_listening(self) -> bool:
        return self._pipe is not None

    def stop_listening(self) -> None:
        if self._pipe is None:
            return
        signal.set_wakeup_fd(-1)
        for number in SIGNALS:
            if callable(signal.getsignal(number)):  # what is ignored stays ignored
                signal.signal(
                    number,
                    signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL,
                )
        for end in self._pipe:
            os.close(end)
        self._pipe, self._owns_process = None, False
        self._guard = _thread.allocate_lock()
        self._forget()

    def _handle(self, number: int, _frame: object) -> None:
        """On the main thread, as soon as it runs Python code: which may be never."""
        if self._pipe is None:
            return
        other = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        if (
            other != self._pipe[1]
        ):  # an event loop has set its own: our thread did not see this signal
            signal.set_wakeup_fd(other)
            self._send(number)
        if not (self._is_past_start or self._raised):
            self._raised, self._number = True, number
            raise StopRequested

    def _send(self, number: int) -> None:
        if self._pipe is not None:
            try:
                os.write(self._pipe[1], bytes([number]))
            except BlockingIOError:
                pass  # it is full: the thread wakes anyhow

    def _read(self, reading: int, _writing: int) -> None:
        """The thread: signals and the clock."""
        signal.pthread_sigmask(
            signal.SIG_BLOCK, signal.valid_signals()
        )  # they are for the main thread
        while True:
            deadline = self._deadline
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if select.select([reading], [], [], left)[0]:
                for number in os.read(reading, 512):
                    if number == signal.SIGTERM and self._own:
                        self._own -= 1
                    elif number in SIGNALS:
                        self._number = number
                        self._received += 1
                        self._raise_level(
                            self._received
                        )  # what a parent has asked for before is the same demand
                continue
            with self._guard:
                is_over = self._deadline is not None and time.monotonic() >= self._deadline
                was_ending = self._is_ending
            if is_over and was_ending:
                os._exit(self._code())
            if is_over:
                self._cut()

    def _raise_level(self, to: int) -> None:
        """Act on one more signal, or on what stands for it."""
        with self._guard:
            if to <= self._level:
                return
            before, self._level, demand = self._level, to, self._demand
        if to >= EXIT_AT_ONCE:
            os._exit(128 + self._number)
        if self._is_ending:
            self._end_within(EXIT_SECONDS)
        elif demand is not None:
            self._tell(demand, before)
        elif self._is_past_start:
            self._end_within(GRACE_SECONDS)
        else:
            self._end_within(START_SECONDS if to < HURRY else 0.0)

    def _tell(self, demand: Demand, before: int) -> None:
        if before < 1:
            self._end_within(demand.timeout_seconds + GRACE_SECONDS)
            _start(demand.announce).acquire(
                timeout=ANNOUNCE_SECONDS
            )  # what follows from it is logged after it
            demand.stop()
        if self._level >= HURRY:
            self._end_within(HURRY_SECONDS)
            demand.hurry()

    def _end_within(self, seconds: float) -> None:
        """Cut off in so many seconds, unless that is due before."""
        deadline = time.monotonic() + seconds
        if self._deadline is None or deadline < self._deadline:
            self._deadline = deadline
            self._send(0)  # wakes the thread

    def _cut(self) -> None:
        """The time is over. What is done from here on has `EXIT_SECONDS`."""
        with self._guard:
            if self._is_ending:
                return
            self._is_ending, demand = True, self._demand
            self._deadline = time.monotonic() + EXIT_SECONDS
        left: list[Callable[[], object]] = [_run_exit_handlers, _flush]
        if demand is not None and self._settled is None:
            left.append(demand.cut)

        def work(what: Callable[[], object]) -> None:
            try:
                what()
            except BaseException:  # noqa: BLE001  # the others go on
                pass
            with self._guard:
                left.remove(what)
                is_last = not left
            if is_last:
                self._end_within(0.0)

        for what in tuple(left):
            _start(partial(work, what))

    def _code(self) -> int:
        """The exit code of a process that is cut off."""
        if self._settled is not None:
            return self._settled
        return CUT_EXIT_CODE if self._is_past_start else self.stop_code()

    @property
    def is_stopped_early(self) -> bool:
        return self._raised and not self._is_past_start

    def stop_code(self) -> int:
        """The exit code of a command that was stopped before it served."""
        return 0 if self._is_service else 128 + self._number

    def own_process(self) -> None:
        self._owns_process = True
        self.listen()

    def begin_service(self) -> None:
        self._is_service = True

    def demand(self, demand: Demand) -> None:
        self.listen()
        with self._guard:
            self._demand, level = demand, self._level
            self._is_past_start = True
        if level:  # the main thread has overheard it: somebody's code swallowed the exception
            self._deadline = None
            self._tell(demand, 0)

    def withdraw(self) -> None:
        with self._guard:
            self._demand = None

    def settle(self, code: int) -> None:
        self._settled = code

    def ask_to_stop(self) -> None:
        with self._guard:
            interrupts = not (self._is_past_start or self._level)
            self._own += interrupts
        self._raise_level(1)
        if interrupts:
            os.kill(os.getpid(), signal.SIGTERM)

    def ask_to_hurry(self) -> None:
        self._raise_level(HURRY)

    def leave(self, code: int) -> NoReturn:
        if self._settled is None:
            self._settled = code
        if not (self._is_service and self._owns_process):
            sys.exit(code)
        self._is_past_start = True
        with self._guard:
            was_ending, self._is_ending = self._is_ending, True
            if not was_ending:
                self._deadline = time.monotonic() + (
                    EXIT_SECONDS if self._level else UNASKED_EXIT_SECONDS
                )
        if was_ending:  # it was cut off: the exit handlers run
            time.sleep(2 * EXIT_SECONDS)
        self._send(0)
        joins_children = _run_exit_handlers()
        # The interpreter waits for threads, runs these, the last one first, and would go on to
        # whatever `__del__` does.
        atexit.register(self._end)
        if joins_children is not None:
            atexit.register(joins_children)
        sys.exit(code)

    def _end(self) -> None:
        _flush()
        os._exit(self._code())


def _run_exit_handlers() -> Callable[[], object] | None:
    """Run what is registered with `atexit`, but what waits for processes that jobs have left: it
    would starve the rest.

    Returns:
        What was left out, or None.
    """
    joins_children: Callable[[], object] | None
    joins_children = getattr(sys.modules.get("multiprocessing.util"), "_exit_function", None)
    if joins_children is not None:
        atexit.unregister(joins_children)
    atexit._run_exitfuncs()  # noqa: SLF001  # there is no other call for it, and the interpreter's comes too late
    return joins_children


def _start(what: Callable[[], object]) -> _thread.LockType:
    """Call something on a thread of its own: it may block for ever.

    Returns a lock that is free when it has ended.
    """
    running = _thread.allocate_lock()
    running.acquire()

    def run() -> None:
        signal.pthread_sigmask(
            signal.SIG_SETMASK, ()
        )  # what it starts would inherit what the reading thread blocks
        try:
            what()
        except BaseException:  # noqa: BLE001  # nobody is left to hear of it
            pass
        finally:
            running.release()

    _thread.start_new_thread(run, ())
    return running


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # noqa: BLE001  # it is closed, or nobody reads it
            pass


_PROCESS: Final = _Shutdown()


def listen() -> None:
    """Handle SIGTERM and SIGINT from now on, in a process that is ours to end.

    On the main thread; once is enough.

    Until `on_stop` is entered, the first signal raises `StopRequested` in the main thread.
    """
    _PROCESS.own_process()


def is_listening() -> bool:
    """Whether this process handles SIGTERM and SIGINT here."""
    return _PROCESS.is_listening


def stop_listening() -> None:
    """In the child of a fork: its signals are its own, act by default, and do not reach the
    parent's event loop.
    """
    _PROCESS.stop_listening()


def begin_service() -> None:
    """Say that this command serves until it is stopped: to be stopped before it has begun is no
    failure.
    """
    _PROCESS.begin_service()


class on_stop:  # noqa: N801  # used as a function
    """Stop something in order while inside: the first signal stops, the second hurries, the third
    ends the process.

    From entering on no signal raises an exception any more. On the main thread.
    """

    def __init__(self, demand: Demand) -> None:
        self._demand = demand

    def __enter__(self) -> None:
        _PROCESS.demand(self._demand)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _PROCESS.withdraw()


def ask_to_stop() -> None:
    """Do what the first signal does, unless one has come. From any thread."""
    _PROCESS.ask_to_stop()


def ask_to_hurry() -> None:
    """Do what the second signal does, unless it has come. From any thread."""
    _PROCESS.ask_to_hurry()


def settle(code: int) -> None:
    """Set the exit code: what is left to do may be cut off without changing it."""
    _PROCESS.settle(code)


def is_stopped_early() -> bool:
    """Whether `StopRequested` was raised, and nothing is served: then every error that ends the
    command comes of it.

    Python and other people's code make other exceptions of it, `RuntimeError` where it is raised in
    `__set_name__`.
    """
    return _PROCESS.is_stopped_early


def stop_code() -> int:
    """The exit code of a command that was stopped before it served: 0 of a service, else 143 or
    130, as in a shell.
    """
    return _PROCESS.stop_code()


def leave(code: int) -> NoReturn:
    """End the process: its exit handlers have a second after a signal, and what hangs is cut off.

    On the main thread.

    A command that is no service, or that another program runs, ends as every Python program does.

    Args:
        code: The exit code, unless it is settled.

    Raises:
        SystemExit: Always.
    """
    _PROCESS.leave(code)

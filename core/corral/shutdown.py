"""Ends a process of Corral: handles SIGTERM and Ctrl-C, and limits how long the end may take.

A thread reads the signals, so that they take effect while the main thread is busy in an import, in
a processor that blocks the event loop, or in C code during which no handler runs. The same thread
watches the time: a process that has not ended in time is cut off. This thread calls nothing that
could block; such calls run on threads of their own.

The module knows no command, no store and no logs. A command declares with `on_stop` how it is
stopped, and ends with `leave`. Signals are handled before anything else is imported, even before
`typing`, `contextlib` and `threading`: importing those takes longer than Python's own start.
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

TYPE_CHECKING = False  # checkers take it for True, and `typing` need not be imported
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Final, NoReturn

__all__ = [
    "CUT_EXIT_CODE",
    "SIGNALS",
    "StopHandler",
    "StopRequested",
    "ask_to_stop",
    "ask_to_stop_sooner",
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
"""The numbers of the signal that hurries, and of the one that ends the process."""
GRACE_SECONDS: Final = 0.6
"""How long after its timeout a stopping command may take to interrupt jobs and to write that.

Together with `EXIT_SECONDS` it is less than the promised 2 s; the rest is for a busy machine.
"""
ANNOUNCE_SECONDS: Final = 0.05
"""How long stopping waits for its announcement: a log whose reader has stopped may block."""
START_SECONDS: Final = 0.6
"""How long a command that is stopped before it serves may take to close what it has opened."""
HURRY_SECONDS: Final = 0.7
"""As `GRACE_SECONDS`, after the second signal. It is promised to hand back the jobs within 1 s."""
EXIT_SECONDS: Final = 1.0
"""How long the exit handlers have: a tracer and an error tracker send what they hold."""
UNASKED_EXIT_SECONDS: Final = 10.0
"""How long the exit handlers have if the command has ended by itself, and was not stopped."""
CUT_EXIT_CODE: Final = 5
"""The exit code of a command that was cut off; see `corral.cli`."""


class StopRequested(KeyboardInterrupt):
    """Raised in the main thread by a signal that comes before `on_stop` is entered.

    It is a `KeyboardInterrupt`, because other code does not catch that. A `SystemExit` is no
    choice: Corral reports one that a plugin raises.
    """


def _nothing() -> None:
    pass


class StopHandler:
    """What a command does when it is asked to stop.

    Each function may be called on any thread, and is called at most once.

    Args:
        timeout_seconds: How long the jobs that run may take. The time to interrupt those that are
            left comes on top.
        stop: Stops the command in order. Must not block.
        announce: Logs what the command waits for, and what a second signal does.
        hurry: Stops waiting for the jobs that run. Must not block.
        cut: Called when the time is over: hands back jobs, within `EXIT_SECONDS` and while the exit
            handlers run. The main thread may hang.
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
    """The end of the process. One object per process, because signals belong to the process."""

    def __init__(self) -> None:
        self._pipe: tuple[int, int] | None = None
        self._owns_process = False
        self._guard = _thread.allocate_lock()
        self._reset()

    def _reset(self) -> None:
        self._received = 0  # how many signals came
        self._level = 0  # how urgently signals, or a parent process, ask to stop
        self._own = 0  # signals of this process to itself, which only interrupt the main thread
        self._number: int = signal.SIGINT
        self._handler: StopHandler | None = None
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
        _thread.start_new_thread(self._read, pipe)  # `threading` is not imported, see above

    @property
    def is_listening(self) -> bool:
        return self._pipe is not None

    def stop_listening(self) -> None:
        if self._pipe is None:
            return
        signal.set_wakeup_fd(-1)
        for number in SIGNALS:
            if callable(signal.getsignal(number)):  # a signal that is ignored stays ignored
                signal.signal(
                    number,
                    signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL,
                )
        for end in self._pipe:
            os.close(end)
        self._pipe, self._owns_process = None, False
        self._guard = _thread.allocate_lock()
        self._reset()

    def _handle(self, number: int, _frame: object) -> None:
        """Handle a signal, on the main thread: as soon as that executes Python code, or never."""
        if self._pipe is None:
            return
        other = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        # If an event loop has set a descriptor of its own, our thread did not see this signal.
        if other != self._pipe[1]:
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
                pass  # the pipe is full: the thread wakes up anyway

    def _read(self, reading: int, _writing: int) -> None:
        """Run the thread that reads signals and watches the time."""
        # Signals are for the main thread.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
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
                        # A parent process that asked before has raised the level already.
                        self._raise_level(self._received)
                continue
            with self._guard:
                is_over = self._deadline is not None and time.monotonic() >= self._deadline
                was_ending = self._is_ending
            if is_over and was_ending:
                os._exit(self._code())
            if is_over:
                self._cut()

    def _raise_level(self, to: int) -> None:
        """Act on a further signal, or on a call that has the same effect."""
        with self._guard:
            if to <= self._level:
                return
            before, self._level, handler = self._level, to, self._handler
        if to >= EXIT_AT_ONCE:
            os._exit(128 + self._number)
        if self._is_ending:
            self._end_within(EXIT_SECONDS)
        elif handler is not None:
            self._act_on(handler, before)
        elif self._is_past_start:
            self._end_within(GRACE_SECONDS)
        else:
            self._end_within(START_SECONDS if to < HURRY else 0.0)

    def _act_on(self, handler: StopHandler, before: int) -> None:
        """Stop a command, or hurry it, by its level, which was `before` until now."""
        if before < 1:
            self._end_within(handler.timeout_seconds + GRACE_SECONDS)
            # Waits, so that the announcement is logged before its consequences.
            _start(handler.announce).acquire(timeout=ANNOUNCE_SECONDS)
            handler.stop()
        if self._level >= HURRY:
            self._end_within(HURRY_SECONDS)
            handler.hurry()

    def _end_within(self, seconds: float) -> None:
        """Cut the process off in so many seconds, unless an earlier deadline is set."""
        deadline = time.monotonic() + seconds
        if self._deadline is None or deadline < self._deadline:
            self._deadline = deadline
            self._send(0)  # wakes the thread

    def _cut(self) -> None:
        """Start to cut the process off: what is left to do has `EXIT_SECONDS`."""
        with self._guard:
            if self._is_ending:
                return
            self._is_ending, handler = True, self._handler
            self._deadline = time.monotonic() + EXIT_SECONDS
        left: list[Callable[[], object]] = [_run_exit_handlers, _flush]
        if handler is not None and self._settled is None:
            left.append(handler.cut)

        def run_step(step: Callable[[], object]) -> None:
            try:
                step()
            except BaseException:  # noqa: BLE001  # the other steps go on
                pass
            with self._guard:
                left.remove(step)
                is_last = not left
            if is_last:
                self._end_within(0.0)

        for step in tuple(left):
            _start(partial(run_step, step))

    def _code(self) -> int:
        """Return the exit code of a process that is cut off."""
        if self._settled is not None:
            return self._settled
        return CUT_EXIT_CODE if self._is_past_start else self.stop_code()

    @property
    def is_stopped_early(self) -> bool:
        return self._raised and not self._is_past_start

    def stop_code(self) -> int:
        """Return the exit code of a command that was stopped before it served."""
        return 0 if self._is_service else 128 + self._number

    def own_process(self) -> None:
        self._owns_process = True
        self.listen()

    def begin_service(self) -> None:
        self._is_service = True

    def set_handler(self, handler: StopHandler) -> None:
        self.listen()
        with self._guard:
            self._handler, level = handler, self._level
            self._is_past_start = True
        if level:  # other code has swallowed the exception that the signal raised in this thread
            self._deadline = None
            self._act_on(handler, 0)

    def clear_handler(self) -> None:
        with self._guard:
            self._handler = None

    def settle(self, code: int) -> None:
        self._settled = code

    def ask_to_stop(self) -> None:
        with self._guard:
            interrupts = not (self._is_past_start or self._level)
            self._own += interrupts
        self._raise_level(1)
        if interrupts:
            os.kill(os.getpid(), signal.SIGTERM)

    def ask_to_stop_sooner(self) -> None:
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
        if was_ending:  # the process is being cut off: another thread runs the exit handlers
            time.sleep(2 * EXIT_SECONDS)
        self._send(0)
        joins_children = _run_exit_handlers()
        # The interpreter waits for threads, then runs these, the last one first. Without `_end` it
        # would go on to the objects' `__del__` methods, which may hang.
        atexit.register(self._end)
        if joins_children is not None:
            atexit.register(joins_children)
        sys.exit(code)

    def _end(self) -> None:
        _flush()
        os._exit(self._code())


def _run_exit_handlers() -> Callable[[], object] | None:
    """Run the `atexit` handlers, except the one that waits for processes that jobs have left.

    That one may wait for ever, and the others would not run.

    Returns:
        The handler that was left out, or None.
    """
    joins_children: Callable[[], object] | None
    joins_children = getattr(sys.modules.get("multiprocessing.util"), "_exit_function", None)
    if joins_children is not None:
        atexit.unregister(joins_children)
    atexit._run_exitfuncs()  # noqa: SLF001  # no public call; the interpreter's own is too late
    return joins_children


def _start(function: Callable[[], object]) -> _thread.LockType:
    """Call a function that may block for ever, on a thread of its own.

    Returns:
        A lock that is free when the call has ended.
    """
    running = _thread.allocate_lock()
    running.acquire()

    def run() -> None:
        # Processes that it starts would inherit the mask of the thread that reads signals.
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        try:
            function()
        except BaseException:  # noqa: BLE001  # the process ends: no code is left to handle it
            pass
        finally:
            running.release()

    _thread.start_new_thread(run, ())
    return running


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # noqa: BLE001  # it is closed, or its reader has gone
            pass


_PROCESS: Final = _Shutdown()


def listen() -> None:
    """Handle SIGTERM and SIGINT from now on, in a process that belongs to Corral.

    To be called on the main thread; further calls do nothing. Until `on_stop` is entered, the first
    signal raises `StopRequested` in the main thread.
    """
    _PROCESS.own_process()


def is_listening() -> bool:
    """Return whether this module handles SIGTERM and SIGINT of this process."""
    return _PROCESS.is_listening


def stop_listening() -> None:
    """Stop handling signals; for a forked child.

    They have their default effects then, and do not reach the parent's event loop.
    """
    _PROCESS.stop_listening()


def begin_service() -> None:
    """Declare that this command serves until it is stopped.

    Being stopped before it has begun to serve is no failure then.
    """
    _PROCESS.begin_service()


class on_stop:  # noqa: N801  # used as a function
    """Context manager that lets signals act on a command, to be entered on the main thread.

    The first signal stops the command in order, the second hurries it, the third ends the process.
    From entering on, no signal raises an exception any more.

    Args:
        handler: How the command is stopped.
    """

    def __init__(self, handler: StopHandler) -> None:
        self._handler = handler

    def __enter__(self) -> None:
        _PROCESS.set_handler(self._handler)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _PROCESS.clear_handler()


def ask_to_stop() -> None:
    """Act as the first signal does, unless one has come. Callable from any thread."""
    _PROCESS.ask_to_stop()


def ask_to_stop_sooner() -> None:
    """Act as the second signal does, unless it has come. Callable from any thread."""
    _PROCESS.ask_to_stop_sooner()


def settle(code: int) -> None:
    """Set the exit code; the rest of the process may be cut off without changing it."""
    _PROCESS.settle(code)


def is_stopped_early() -> bool:
    """Return whether `StopRequested` was raised and the command did not serve yet.

    Then it is the cause of every error that ends the command. Python and other code replace it with
    other exceptions, for example with a `RuntimeError` if it is raised in `__set_name__`.
    """
    return _PROCESS.is_stopped_early


def stop_code() -> int:
    """Return the exit code of a command that was stopped before it served.

    It is 0 for a service, else 143 or 130, as in a shell.
    """
    return _PROCESS.stop_code()


def leave(code: int) -> NoReturn:
    """End the process; to be called on the main thread.

    After a signal, its exit handlers have a second, and are cut off if they hang. A command that is
    no service, or that runs inside another program, ends as every Python program does.

    Args:
        code: The exit code, unless `settle` has set one.

    Raises:
        SystemExit: Always.
    """
    _PROCESS.leave(code)

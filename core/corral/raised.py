"""Reads an exception that a processor raised: its class, its text, its traceback.

No function in here raises, whatever it reads.

The exception may be of any class. Looking up its attributes may raise, making its text may run any
code or give a hundred megabytes, and it may have ten thousand causes. So the parts that the
interpreter keeps (class, frames, cause, context, members of a group) are read without the class's
own attributes. Each other part is read separately: if reading it raises, even a `SystemExit` or a
`MemoryError`, only that part is lost. The text of a traceback equals that of
`traceback.format_exception`. It is made from its end, and only as far as it is kept, so that the
work is bounded.

This module knows nothing of jobs.
"""

from __future__ import annotations

import sys
import textwrap
import traceback
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import islice
from types import CodeType, TracebackType
from typing import Any, Final, cast

from corral.job import cut_to

__all__ = ["MAX_REASON_BYTES", "class_name", "describe", "remove_frames_of", "shortened"]

MAX_REASON_BYTES: Final = 1024
MAX_TRACEBACK_CHARS: Final = 8 * 1024
"""How much of a traceback is kept: its end, once per failed attempt, in the store's memory."""
FEW_FRAMES: Final = 64
"""Up to so many frames are formatted at once, which costs two thirds of one by one."""
MAX_FRAMES: Final = 50_000
"""Frames of one exception that are read at most, in 15 ms. The usual recursion limit is 1,000."""
MAX_LINKS: Final = 1_000
"""Causes of a group's last member that are read at most before it is printed.

They decide whether the line that closes the group's frame is printed.
"""
REPEATS: Final = 3
"""How often the same line is printed before its repetitions are counted, as in `traceback`."""
GROUP_WIDTH: Final = 15
"""How many members of a group are printed, as in `traceback`."""
GROUP_DEPTH: Final = 10
"""How many nested groups are printed, as in `traceback`."""
LARGEST_LINE_NUMBER: Final = 10**9

_CAUSED: Final = "\nThe above exception was the direct cause of the following exception:\n\n"
_DURING: Final = "\nDuring handling of the above exception, another exception occurred:\n\n"


def _reader(owner: type, name: str) -> Callable[[Any], Any]:
    """Return a function that reads an attribute as `owner` defines it.

    A subclass or a metaclass that redefines the attribute is not asked.
    """
    read: Callable[[Any], Any] = owner.__dict__[name].__get__
    return read


_name: Final = _reader(type, "__name__")
_qualname: Final = _reader(type, "__qualname__")
_module: Final = _reader(type, "__module__")
_traceback: Final = _reader(BaseException, "__traceback__")
_cause: Final = _reader(BaseException, "__cause__")
_context: Final = _reader(BaseException, "__context__")
_suppresses_context: Final = _reader(BaseException, "__suppress_context__")
_members: Final = _reader(BaseExceptionGroup, "exceptions")
_SYNTAX: Final = {
    name: _reader(SyntaxError, name)
    for name in ("msg", "filename", "lineno", "offset", "text", "end_lineno", "end_offset")
}


def class_name(error: BaseException) -> str:
    """Return the name of an exception's class."""
    return str.__str__(_name(type(error)))


def describe(error: BaseException, about: str = "") -> tuple[str, str]:
    """Return the reason and the traceback of an exception, as texts.

    Args:
        error: Any exception.
        about: What raised it, as a part of the reason; or empty.

    Returns:
        `ClassName: about: text`, at most `MAX_REASON_BYTES` of UTF-8; and the end of its traceback,
        at most `MAX_TRACEBACK_CHARS`. Both can be written as UTF-8.
    """
    text = plain_text(error)
    message = "its text cannot be read" if text is None else text[: MAX_REASON_BYTES + 1]
    reason = ": ".join(part for part in (class_name(error), about, message) if part)
    return shortened(reason), _printed(error, text)


def shortened(text: str) -> str:
    """Return a text cut to a reason's length, `MAX_REASON_BYTES` of UTF-8; `…` marks the cut."""
    return cut_to(text, MAX_REASON_BYTES)


def remove_frames_of(error: BaseException, files: Collection[str]) -> BaseException:
    """Remove the frames of these files from the beginning of an exception's traceback.

    Args:
        error: The exception; it is changed.
        files: Names of files, as code objects have them.

    Returns:
        The exception.
    """
    left = _traceback(error)
    while left is not None and str.__str__(left.tb_frame.f_code.co_filename) in files:
        left = left.tb_next
    BaseException.__dict__["__traceback__"].__set__(error, left)
    return error


def plain_text(value: object, convert: Callable[[Any], object] = str) -> str | None:
    """Return the text that `str` makes of an object, as a plain `str`; None if it raises.

    Args:
        value: Any object.
        convert: Makes the text.
    """
    try:
        return str.__str__(convert(value))
    except BaseException:  # noqa: BLE001  # the object's own code runs in there
        return str.__str__(cast("str", value)) if issubclass(type(value), str) else None


def _end(text: str) -> str:
    """Return the end of a text, as much as can be part of the traceback that is kept."""
    return text if len(text) <= MAX_TRACEBACK_CHARS else text[-MAX_TRACEBACK_CHARS:]


def _printed(error: BaseException, text: str | None) -> str:
    pieces, chars = [], 0
    try:
        for piece in _Chain(error, text).pieces(error):
            pieces.append(piece)
            chars += len(piece)
            if chars >= MAX_TRACEBACK_CHARS:
                break
    except BaseException:  # noqa: BLE001, S110  # out of memory, say: the pieces so far are kept
        pass
    whole = "".join(reversed(pieces))
    return _end(whole).encode(errors="replace").decode()


class _Chain:
    """Prints an exception with all that led to it, in pieces, from the last to the first.

    Args:
        error: The exception.
        text: Its text, which is read only once; None if it cannot be read.
    """

    def __init__(self, error: BaseException, text: str | None) -> None:
        self._error = error
        self._text = text
        self._seen = {id(error)}

    def pieces(self, error: BaseException, depth: int = 0) -> Iterator[str]:
        """Yield the pieces of one exception and of its causes, nested in `depth` groups."""
        left: BaseException | None = error
        while left is not None:
            relation, before = self._link(left, self._seen)
            yield from self._one(left, depth)
            if before is not None:
                yield _indented(relation, depth)
            left = before

    @staticmethod
    def _link(error: BaseException, seen: set[int]) -> tuple[str, BaseException | None]:
        """Return the exception that led to this one, and the line between the two.

        One that was printed already is not returned. Its id is added to `seen`.
        """
        relation, before = _CAUSED, _cause(error)
        if before is None or id(before) in seen:
            relation, before = _DURING, None if _suppresses_context(error) else _context(error)
        if before is None or id(before) in seen:
            return "", None
        seen.add(id(before))
        return relation, before

    def _one(self, error: BaseException, depth: int) -> Iterator[str]:
        if not issubclass(type(error), BaseExceptionGroup):
            yield from self._head("Traceback (most recent call last):\n", error, depth)
        elif depth > GROUP_DEPTH:
            yield _indented(f"... (max_group_depth is {GROUP_DEPTH})\n", depth)
        else:
            yield from self._all_members(_members(error), max(depth, 1))
            title = "Exception Group Traceback (most recent call last):\n"
            yield from self._head(title, error, max(depth, 1), "|" if depth else "+")

    def _all_members(self, members: Sequence[BaseException], depth: int) -> Iterator[str]:
        shown = members[:GROUP_WIDTH]
        self._seen.update(map(id, shown))
        end = f"{'  ' * (depth + 1)}+------------------------------------\n"
        if more := len(members) - len(shown):
            yield end
            yield _indented(f"and {more} more exception{'s' if more > 1 else ''}\n", depth + 1)
            yield f"{'  ' * depth}  +---------------- ... ----------------\n"
        elif self._ends_open(shown[-1], depth + 1):
            yield end
        for place in reversed(range(len(shown))):
            yield from self.pieces(shown[place], depth + 1)
            corner = "  " if place else "+-"
            yield f"{'  ' * depth}{corner}+---------------- {place + 1} ----------------\n"

    def _ends_open(self, error: BaseException, depth: int) -> bool:
        """Return whether no group in an exception's chain has closed the frame around it."""
        if depth > GROUP_DEPTH:
            return True
        left: BaseException | None = error
        seen = {*self._seen}
        for _ in range(MAX_LINKS):
            if left is None:
                break
            if issubclass(type(left), BaseExceptionGroup):
                return False
            left = self._link(left, seen)[1]
        return True

    def _head(
        self, title: str, error: BaseException, depth: int, margin: str = "|"
    ) -> Iterator[str]:
        """Yield one exception without its members: its frames, its text, its notes."""
        trace = _traceback(error)
        text = self._text if error is self._error else plain_text(error)
        for piece in (*_notes(error), *_last_lines(error, trace, text)):
            yield _indented(piece, depth)
        for piece in _frames(trace):
            yield _indented(piece, depth)
        if trace is not None:
            yield _indented(title, depth, margin)


def _indented(text: str, depth: int, margin: str = "|") -> str:
    return textwrap.indent(text, f"{'  ' * depth}{margin} ", lambda _: True) if depth else text


def _last_lines(
    error: BaseException, trace: TracebackType | None, text: str | None
) -> Iterator[str]:
    """Yield the line with the class and the text, then the lines that a `SyntaxError` quotes.

    The last line comes first.
    """
    kind = type(error)
    name = _end(_full_name(kind))
    if issubclass(kind, SyntaxError):
        yield from reversed(_quoted_source(error, name))
        return
    shown = "<exception str() failed>" if text is None else _end(text)
    if (
        text
        and sys.version_info >= (3, 12)
        and issubclass(kind, NameError | AttributeError | ImportError)
    ):
        shown = _with_suggestion(error, trace, shown)
    yield f"{name}: {shown}\n" if shown else f"{name}\n"


def _full_name(kind: type) -> str:
    name = str.__str__(_qualname(kind))
    try:
        module = str.__str__(_module(kind))
    except BaseException:  # noqa: BLE001  # it was deleted, or is no text
        module = "<unknown>"
    return name if module in {"__main__", "builtins"} else f"{module}.{name}"


def _notes(error: BaseException) -> Iterator[str]:
    """Yield the lines of an exception's notes, the last line first."""
    try:
        # Without `__getattr__`, which many classes delegate to an object that has no notes and
        # raises.
        notes = object.__getattribute__(error, "__notes__")
    except AttributeError:
        return
    except BaseException:  # noqa: BLE001  # a property's own code runs in there
        yield "<__notes__ cannot be read>\n"
        return
    if notes is None:
        return
    try:
        kept = _last_notes(notes)
    except BaseException:  # noqa: BLE001  # a sequence's own code runs in there
        kept = None
    if kept is None:
        yield f"{_end(plain_text(notes, repr) or '<__notes__ repr() failed>')}\n"
        return
    for note in reversed(kept):
        text = plain_text(note)
        for line in reversed(("<note str() failed>" if text is None else _end(text)).split("\n")):
            yield f"{line}\n"


def _last_notes(notes: object) -> Sequence[object] | None:
    """Return as many notes as the traceback can keep; None if they are no sequence of notes."""
    kind = type(notes)
    if issubclass(kind, list):  # a subclass's own methods must not run
        kept: list[object] = list.__getitem__(
            cast("list[object]", notes), slice(-MAX_TRACEBACK_CHARS, None)
        )
        return kept
    if issubclass(kind, str | bytes) or not issubclass(kind, Sequence):
        return None
    return [*islice(cast("Sequence[object]", notes), MAX_TRACEBACK_CHARS)]


def _quoted_source(error: BaseException, name: str) -> list[str]:
    """Return the lines in which a `SyntaxError` quotes the source, as `traceback` prints them.

    Fields that cannot be printed are left out.
    """
    number = {
        each: _number(_SYNTAX[each](error))
        for each in ("lineno", "end_lineno", "offset", "end_offset")
    }
    source = _SYNTAX["text"](error)
    text = _end(str.__str__(source)) if issubclass(type(source), str) else None
    if text is None or any(
        not -1 <= (number[each] or 0) <= len(text) + 2 for each in ("offset", "end_offset")
    ):
        # The line of markers would have so many characters.
        number["offset"] = number["end_offset"] = None
    clean = SyntaxError(_optional_text(_SYNTAX["msg"](error)) or "")
    clean.filename, clean.text = _optional_text(_SYNTAX["filename"](error)), text
    for each, value in number.items():
        setattr(clean, each, value)
    try:
        *lines, last = traceback.format_exception_only(SyntaxError, clean)
    except BaseException:  # noqa: BLE001  # another Python may need further fields
        lines, last = [], f"SyntaxError: {clean.msg}\n"
    return [*lines, name + last.removeprefix("SyntaxError")]


def _number(value: object) -> int | None:
    """Return a plain number that is short enough to be printed, or None."""
    if not issubclass(type(value), int):
        return None
    number = int.__int__(value)  # type: ignore[arg-type]  # a subclass's own methods must not run
    return number if abs(number) <= LARGEST_LINE_NUMBER else None


def _optional_text(value: object) -> str | None:
    text = None if value is None else plain_text(value)
    return None if text is None else _end(text)


def _with_suggestion(error: BaseException, trace: TracebackType | None, text: str) -> str:
    """Return the text with the suggestion of newer Pythons: "Did you mean: 'name'?"."""
    try:
        clean: BaseException
        if issubclass(type(error), ImportError):
            read = {
                name: _reader(ImportError, name)(error) for name in ("name", "path", "name_from")
            }
            if read["name"] not in sys.modules:
                return text  # making the suggestion would import it
            clean = ImportError(text, **read)
        elif issubclass(type(error), AttributeError):
            clean = AttributeError(
                text, **{name: _reader(AttributeError, name)(error) for name in ("name", "obj")}
            )
        else:
            clean = NameError(text, name=_reader(NameError, "name")(error))
        made = traceback.TracebackException(type(clean), clean, trace, limit=0, compact=True)
        (line,) = made.format_exception_only()
        return _end(line.partition(": ")[2].removesuffix("\n"))
    except BaseException:  # noqa: BLE001  # it looks up names of other objects
        return text


def _frames(trace: TracebackType | None) -> Iterator[str]:
    """Yield the frames as `traceback` prints them, with repeated lines counted, the last first."""
    if (few := _few_frames(trace)) is not None:
        yield from reversed(few)
        return
    runs: deque[tuple[list[TracebackType], int]] = deque(maxlen=MAX_TRACEBACK_CHARS)
    held: list[TracebackType] = []
    count, place, looked_at = 0, None, 0
    while trace is not None and looked_at < MAX_FRAMES:
        here = _place(trace)
        if here != place or here is None:
            if held:
                runs.append((held, count))
            held, count, place = [], 0, here
        if len(held) < REPEATS:
            held.append(trace)
        count += 1
        looked_at += 1
        trace = trace.tb_next
    if held:
        runs.append((held, count))
    if trace is not None:
        yield "  [Further frames are left out]\n"
    for held, count in reversed(runs):
        if more := count - len(held):
            yield f"  [Previous line repeated {more} more time{'s' if more > 1 else ''}]\n"
        for each in reversed(held):
            yield _frame(each)


def _few_frames(trace: TracebackType | None) -> list[str] | None:
    """Return the frames of a short traceback.

    Returns:
        None for a longer one, and for one that has to be read frame by frame.
    """
    left = trace
    for _ in range(FEW_FRAMES):
        if left is None:
            break
        left = left.tb_next
    if left is not None:
        return None
    try:
        return traceback.extract_tb(trace).format()
    except BaseException:  # noqa: BLE001  # the loader that a frame names reads its source
        return None


def _place(trace: TracebackType) -> tuple[str, str, int] | None:
    code: CodeType = trace.tb_frame.f_code
    line: int | None = trace.tb_lineno
    return (
        None if line is None else (str.__str__(code.co_filename), str.__str__(code.co_name), line)
    )


def _frame(trace: TracebackType) -> str:
    try:
        return _end("".join(traceback.extract_tb(trace, limit=1).format()))
    except BaseException:  # noqa: BLE001  # the loader that the frame names reads its source
        code = trace.tb_frame.f_code
        return (
            f'  File "{_end(code.co_filename)}", line {trace.tb_lineno}, in {_end(code.co_name)}\n'
        )

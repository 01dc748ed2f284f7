"""Reads what a processor raised: its class, its text, its traceback.

Nothing in here raises, whatever it reads.

An exception is somebody else's object. Its class may raise when its attributes are looked up, its
text may be a program or a hundred megabytes, and its causes may be ten thousand. So what the
interpreter itself keeps (class, frames, cause, context, members of a group) is read past the
class's own attributes, every other part is read on its own, and one that raises, a `SystemExit` or
a `MemoryError` included, costs only itself. The text of a traceback is that of
`traceback.format_exception`, made from its end, because only its end is kept: the work is bounded
by what is kept.

This module knows no running job.
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

__all__ = ["MAX_REASON_BYTES", "class_name", "described", "shortened", "without_frames_of"]

MAX_REASON_BYTES: Final = 1024
MAX_TRACEBACK_CHARS: Final = 8 * 1024
"""The end of a traceback says what happened; the store holds one per failed attempt."""
FEW_FRAMES: Final = 64
"""So many frames are formatted in one go, which costs two thirds of one by one."""
MAX_FRAMES: Final = 50_000
"""So many frames of one exception are looked at, 15 ms: the usual recursion limit is 1,000."""
MAX_LINKS: Final = 1_000
"""So many causes of a group's last member are looked at before it is printed, to find where the
frame is closed.
"""
REPEATS: Final = 3
"""How often the same line is printed before its repetitions are counted, as `traceback` does."""
GROUP_WIDTH: Final = 15
"""How many members of a group are printed, as `traceback` does."""
GROUP_DEPTH: Final = 10
"""How many groups inside of each other are printed, as `traceback` does."""
LARGEST_LINE_NUMBER: Final = 10**9

_CAUSED: Final = "\nThe above exception was the direct cause of the following exception:\n\n"
_DURING: Final = "\nDuring handling of the above exception, another exception occurred:\n\n"


def _reader(owner: type, name: str) -> Callable[[Any], Any]:
    """What reads an attribute as `owner` keeps it, whatever a subclass or a metaclass makes of its
    name.
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
    """The name of an exception's class."""
    return str.__str__(_name(type(error)))


def described(error: BaseException, about: str = "") -> tuple[str, str]:
    """What an exception says.

    Args:
        error: Any exception.
        about: What raised it, where the reason shall say so.

    Returns:
        `ClassName: about: text`, at most `MAX_REASON_BYTES` of UTF-8; and the end of its traceback,
        at most `MAX_TRACEBACK_CHARS`. Both can be written as UTF-8.
    """
    text = _text(error)
    said = "its text cannot be read" if text is None else text[: MAX_REASON_BYTES + 1]
    reason = ": ".join(part for part in (class_name(error), about, said) if part)
    return shortened(reason), _printed(error, text)


def shortened(text: str) -> str:
    """A text as a reason: at most `MAX_REASON_BYTES` of UTF-8, and `…` where it was cut."""
    return cut_to(text, MAX_REASON_BYTES)


def without_frames_of(error: BaseException, files: Collection[str]) -> BaseException:
    """Take the frames of these files from the beginning of an exception's traceback.

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


def _text(value: object, convert: Callable[[Any], object] = str) -> str | None:
    """What `str` says of an object, as a plain string, or None where it raises."""
    try:
        return str.__str__(convert(value))
    except BaseException:  # noqa: BLE001  # the object's own code runs in there
        return str.__str__(cast("str", value)) if issubclass(type(value), str) else None


def _end(text: str) -> str:
    """As much of a text as can be left in a traceback's end."""
    return text if len(text) <= MAX_TRACEBACK_CHARS else text[-MAX_TRACEBACK_CHARS:]


def _printed(error: BaseException, text: str | None) -> str:
    pieces, chars = [], 0
    try:
        for piece in _Chain(error, text).pieces(error):
            pieces.append(piece)
            chars += len(piece)
            if chars >= MAX_TRACEBACK_CHARS:
                break
    except BaseException:  # noqa: BLE001, S110  # out of memory, say: what was read so far is better than nothing
        pass
    whole = "".join(reversed(pieces))
    return _end(whole).encode(errors="replace").decode()


class _Chain:
    """Prints an exception with all that led to it, in pieces, from the last to the first.

    Args:
        error: The exception.
        text: Its text, which is read only once, or None where it cannot be read.
    """

    def __init__(self, error: BaseException, text: str | None) -> None:
        self._error = error
        self._text = text
        self._seen = {id(error)}

    def pieces(self, error: BaseException, depth: int = 0) -> Iterator[str]:
        """One exception and what led to it, inside of `depth` groups."""
        left: BaseException | None = error
        while left is not None:
            said, before = self._link(left, self._seen)
            yield from self._one(left, depth)
            if before is not None:
                yield _indented(said, depth)
            left = before

    @staticmethod
    def _link(error: BaseException, seen: set[int]) -> tuple[str, BaseException | None]:
        """What led to an exception and was not printed yet; its id is added to `seen`."""
        said, before = _CAUSED, _cause(error)
        if before is None or id(before) in seen:
            said, before = _DURING, None if _suppresses_context(error) else _context(error)
        if before is None or id(before) in seen:
            return "", None
        seen.add(id(before))
        return said, before

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
            yield f"{'  ' * depth}{'  ' if place else '+-'}+---------------- {place + 1} ----------------\n"

    def _ends_open(self, error: BaseException, depth: int) -> bool:
        """Whether no group in an exception's chain will have closed the frame around it."""
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
        """One exception without its members: its frames, its text, its notes."""
        trace = _traceback(error)
        text = self._text if error is self._error else _text(error)
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
    """The line that has the class and the text, and before it what a `SyntaxError` quotes; the last
    comes first.
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
    """The lines that `add_note` made, or what stands in their place; the last comes first."""
    try:
        # Past a `__getattr__`, which many classes delegate to something that has no notes and
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
        yield f"{_end(_text(notes, repr) or '<__notes__ repr() failed>')}\n"
        return
    for note in reversed(kept):
        text = _text(note)
        for line in reversed(("<note str() failed>" if text is None else _end(text)).split("\n")):
            yield f"{line}\n"


def _last_notes(notes: object) -> Sequence[object] | None:
    """As many notes as can be left in a traceback's end, or None of what is no sequence of notes."""
    kind = type(notes)
    if issubclass(kind, list):  # of a subclass, its own methods are not asked
        kept: list[object] = list.__getitem__(
            cast("list[object]", notes), slice(-MAX_TRACEBACK_CHARS, None)
        )
        return kept
    if issubclass(kind, str | bytes) or not issubclass(kind, Sequence):
        return None
    return [*islice(cast("Sequence[object]", notes), MAX_TRACEBACK_CHARS)]


def _quoted_source(error: BaseException, name: str) -> list[str]:
    """What a `SyntaxError` says of the place, as `traceback` does, from those of its fields that
    can be printed.
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
        number["offset"] = number["end_offset"] = None  # so many characters would be printed
    clean = SyntaxError(_words(_SYNTAX["msg"](error)) or "")
    clean.filename, clean.text = _words(_SYNTAX["filename"](error)), text
    for each, value in number.items():
        setattr(clean, each, value)
    try:
        *lines, last = traceback.format_exception_only(SyntaxError, clean)
    except BaseException:  # noqa: BLE001  # another Python may ask for more
        lines, last = [], f"SyntaxError: {clean.msg}\n"
    return [*lines, name + last.removeprefix("SyntaxError")]


def _number(value: object) -> int | None:
    """A plain number that is short enough to be printed, or None."""
    if not issubclass(type(value), int):
        return None
    number = int.__int__(value)  # type: ignore[arg-type]  # a subclass, whose own methods are not asked
    return number if abs(number) <= LARGEST_LINE_NUMBER else None


def _words(value: object) -> str | None:
    text = None if value is None else _text(value)
    return None if text is None else _end(text)


def _with_suggestion(error: BaseException, trace: TracebackType | None, text: str) -> str:
    """The text with what newer Pythons add to it: "Did you mean: 'name'?"."""
    try:
        clean: BaseException
        if issubclass(type(error), ImportError):
            read = {
                name: _reader(ImportError, name)(error) for name in ("name", "path", "name_from")
            }
            if read["name"] not in sys.modules:
                return text  # it would be imported now
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
    except BaseException:  # noqa: BLE001  # names of objects are looked up for it
        return text


def _frames(trace: TracebackType | None) -> Iterator[str]:
    """The frames as `traceback` prints them, repeated lines counted; the last comes first."""
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
    """The frames of a short traceback, or None of a longer one, and of one that has to be read
    frame by frame.
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
    except BaseException:  # noqa: BLE001  # a source is read by the loader that its frame names
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
    except BaseException:  # noqa: BLE001  # its source is read by the loader that the frame names
        code = trace.tb_frame.f_code
        return (
            f'  File "{_end(code.co_filename)}", line {trace.tb_lineno}, in {_end(code.co_name)}\n'
        )

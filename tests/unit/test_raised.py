"""The texts of exceptions: as `traceback` prints them, and safe to read for any exception."""

from __future__ import annotations

import asyncio
import random
import re
import sys
import traceback
import tracemalloc
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from corral.raised import describe, remove_frames_of

KEPT = 8192


def printed(error: BaseException) -> str:
    """The end of the text that `traceback` prints of an exception."""
    return "".join(traceback.format_exception(error))[-KEPT:].encode(errors="replace").decode()


def thrown(function: Callable[[], object]) -> BaseException:
    try:
        function()
    except BaseException as error:  # noqa: BLE001  # of every kind
        return error
    raise AssertionError("it raised nothing")


def throw(error: BaseException) -> object:
    raise error


def deep(levels: int) -> object:
    return deep(levels - 1) if levels else 1 / 0


def zigzag(levels: int) -> object:
    return zag(levels - 1) if levels else int("x")


def zag(levels: int) -> object:
    return zigzag(levels - 1) if levels else {}["x"]


class Tree:
    """Makes exceptions of all kinds with causes and contexts, from a seed."""

    KINDS = (ValueError, KeyError, SystemExit, NameError, OSError, KeyboardInterrupt)

    def __init__(self, seed: int) -> None:
        self.shares = bool(seed % 2)
        self.made: list[BaseException] = []
        self.random = random.Random(seed)
        self.top = self.make()
        if self.shares and self.random.random() < 0.4:
            self.random.choice(self.made).__context__ = self.random.choice(
                self.made
            )  # often a cycle

    def make(self, depth: int = 0) -> BaseException:
        draw, pick = self.random.random, self.random.choice
        if self.shares and self.made and draw() < 0.15:
            return pick(self.made)
        error = self.plain(depth)
        if draw() < 0.5:
            error = thrown(lambda: throw(error))
        if draw() < 0.3:
            error.add_note(pick(["n", "n\nm", "", "a\n"]))
        if draw() < 0.3:
            error.__cause__ = self.make(depth + 1)
        if draw() < 0.3:
            error.__context__ = self.make(depth + 1)
        if draw() < 0.1:
            error.__suppress_context__ = False
        self.made.append(error)
        return error

    def plain(self, depth: int) -> BaseException:
        pick, kind = self.random.choice, self.random.random()
        if kind < 0.35 and depth < pick([3, 14]):
            width = pick([1, 1, 2, 3] if self.shares else [1, 1, 2, 3, 16, 17])
            return BaseExceptionGroup(
                "of\nmany", [self.make(20 if width > 9 else depth + 1) for _ in range(width)]
            )
        if kind < 0.45:
            return thrown(
                lambda: compile(f"x = = {'y' * self.random.randrange(5)}", "f.py", "exec")
            )
        if kind < 0.5:
            return thrown(lambda: compile("if x:\npass\n\n", "f.py", "exec"))
        if kind < 0.55:
            return thrown(lambda: deep(self.random.randrange(6)))
        return pick(self.KINDS)(pick(["", "a", "a\nb", "ä\x0bq\u2028z", "😀", "\ud800"]))


class TestTheTextOfTraceback:
    def test_it_is_what_traceback_prints_for_300_random_trees_of_exceptions(self) -> None:
        for seed in range(300):
            error = Tree(seed).top
            assert describe(error)[1] == printed(error), seed

    @pytest.mark.parametrize("levels", [0, 3, 4, 70, 500, 10**6])
    def test_it_counts_repeated_lines_as_traceback_does(self, levels: int) -> None:
        for function in (deep, zigzag):
            error = thrown(lambda: function(levels))
            assert describe(error)[1] == printed(error)

    def test_a_syntax_error_of_every_shape_is_printed_as_traceback_does(self) -> None:
        class Worse(SyntaxError):
            pass

        for error in (
            SyntaxError(),
            SyntaxError("bad"),
            SyntaxError("bad", ("f.py", None, None, None)),
            SyntaxError("bad", (None, 3, 2, "x = = 3\n")),
            SyntaxError("bad", ("f.py", 3, 2, "  x = = 3\n", 3, 5)),
            SyntaxError("bad", ("f.py", 3, 0, "\tx = = 3", 3, -1)),
            Worse("bad\nworse", ("f.py", 3, 2, "x")),
            TabError("bad", ("f.py", 3, 2, "x")),
        ):
            error.add_note("a note")
            assert describe(error)[1] == printed(error)

    @pytest.mark.skipif(sys.version_info < (3, 12), reason="older Pythons suggest nothing here")
    def test_suggestions_of_newer_pythons_are_kept(self) -> None:
        lettre = 1
        for function in (
            lambda: lettr,  # noqa: F821  # misspelt
            lambda: asyncio.slep,
            lambda: __import__("json", fromlist=["x"]).dmps,
        ):
            error = thrown(function)
            assert describe(error)[1] == printed(error)
        assert lettre


RAISES: list[type[BaseException]] = [
    *(
        ValueError,
        AttributeError,
        StopIteration,
        GeneratorExit,
        RecursionError,
        MemoryError,
        SystemExit,
    ),
    *(KeyboardInterrupt, asyncio.CancelledError),
]
ALL = pytest.mark.parametrize("raises", RAISES)


def evil(
    raises: type[BaseException], *names: str, base: type[BaseException] = Exception
) -> type[BaseException]:
    """A class of exceptions whose methods of these names raise."""

    def method(*_: object, **__: object) -> Any:
        raise raises("no")

    return type("Evil", (base,), dict.fromkeys(names, method))


class TestNothingIsRaised:
    @ALL
    @pytest.mark.parametrize(
        "name", ["__str__", "__getattr__", "__getattribute__", "__repr__", "__bool__", "__eq__"]
    )
    def test_a_method_that_raises_loses_only_its_own_part(
        self, raises: type[BaseException], name: str
    ) -> None:
        error = thrown(lambda: throw(evil(raises, name)("the text")))
        reason, trace = describe(error)
        message = "its text cannot be read" if name == "__str__" else "the text"
        assert reason == f"Evil: {message}"
        assert ", in throw\n" in trace
        assert trace.endswith(
            ".Evil: <exception str() failed>\n" if name == "__str__" else ".Evil: the text\n"
        )

    @ALL
    def test_an_exception_of_which_everything_raises_still_has_a_class_and_frames(
        self, raises: type[BaseException]
    ) -> None:
        names = [
            name
            for name in dir(Exception)
            if name not in {"__new__", "__init__", "__class__", "__init_subclass__"}
        ]
        properties = {"__class__": property(lambda _: throw(raises("no")))}
        kind = type(
            "Worst",
            (evil(raises, *names, "__getattr__", "__hash__", "__len__", "__bool__"),),
            properties,
        )
        for base in (Exception, OSError, KeyError, SyntaxError, ImportError):
            whole = type("Worst", (kind, base), {}) if base is not Exception else kind
            reason, trace = describe(thrown(lambda whole=whole: throw(whole())))
            assert reason == "Worst: its text cannot be read"
            assert ", in throw\n" in trace

    @ALL
    @pytest.mark.parametrize(
        "place", ["cause", "context", "member", "member of a member", "cause of a member"]
    )
    def test_it_loses_no_part_of_the_exceptions_beside_it(
        self, raises: type[BaseException], place: str
    ) -> None:
        inner: BaseException = evil(raises, "__str__", "__getattribute__")()
        error: BaseException = ValueError("the last of all")
        if place == "cause":
            error.__cause__ = inner
        elif place == "context":
            error.__context__ = inner
        elif place == "member":
            error = ExceptionGroup("the last of all", [KeyError("beside it"), inner])
        elif place == "member of a member":
            error = BaseExceptionGroup("the last of all", [BaseExceptionGroup("inside", [inner])])
        else:
            member = KeyError("beside it")
            member.__cause__ = inner
            error = ExceptionGroup("the last of all", [member])
        reason, trace = describe(error)
        assert "the last of all" in reason
        assert "the last of all" in trace
        assert "Evil: <exception str() failed>\n" in trace
        assert ("beside it" in trace) == (
            "beside it" in repr(error)
        ) or place == "cause of a member"

    @ALL
    def test_a_metaclass_that_raises_is_not_called(self, raises: type[BaseException]) -> None:
        def no(*_: object) -> Any:
            raise raises("no")

        names = ("__name__", "__module__", "__mro__", "__dict__")
        methods = (
            "__eq__",
            "__hash__",
            "__instancecheck__",
            "__subclasscheck__",
            "__repr__",
            "__getattribute__",
        )
        meta = type(
            "Meta",
            (type,),
            {**{name: property(no) for name in names}, **dict.fromkeys(methods, no)},
        )
        kind = meta("Odd", (Exception,), {"__module__": "acme"})
        assert describe(kind("x")) == ("Odd: x", "acme.Odd: x\n")

    def test_a_class_without_a_module_or_with_a_strange_one(self) -> None:
        for module in (5, None, property(lambda _: 1 / 0)):
            error = type("Odd", (Exception,), {"__module__": module})("x")
            assert describe(error)[1] == "<unknown>.Odd: x\n"

    @ALL
    def test_notes_that_cannot_be_read_are_left_out(self, raises: type[BaseException]) -> None:
        def no(*_: object) -> Any:
            raise raises("no")

        class Hooked(Exception):
            __notes__ = property(no)

        silent = raises is AttributeError
        end = "Hooked: x\n" if silent else "Hooked: x\n<__notes__ cannot be read>\n"
        assert describe(Hooked("x"))[1].endswith(end)
        bad = type("Bad", (), {"__str__": no, "__repr__": no})
        error = ValueError("x")
        error.__notes__ = ["one", bad(), 3, "two\nlines"]
        assert describe(error)[1] == "ValueError: x\none\n<note str() failed>\n3\ntwo\nlines\n"
        error.__notes__ = bad()
        assert describe(error)[1] == "ValueError: x\n<__notes__ repr() failed>\n"
        error.__notes__ = type(
            "Notes", (list,), {"__iter__": no, "__len__": no, "__getitem__": no}
        )(["one"])
        assert describe(error)[1] == "ValueError: x\none\n"
        error.__notes__ = type("Notes", (tuple,), {"__iter__": no, "__repr__": no})(["one"])
        assert describe(error)[1] == "ValueError: x\n<__notes__ repr() failed>\n"

    @pytest.mark.parametrize("notes", [5, "text", b"text", {"a": 1}, object])
    def test_notes_that_are_no_list_are_shown_as_they_are(self, notes: Any) -> None:
        error = ValueError("x")
        error.__notes__ = notes
        assert describe(error)[1] == f"ValueError: x\n{notes!r}\n"

    @ALL
    def test_a_text_that_is_no_plain_string_is_made_one(self, raises: type[BaseException]) -> None:
        def no(*_: object, **__: object) -> Any:
            raise raises("no")

        names = (
            "__str__",
            "__format__",
            "__len__",
            "__getitem__",
            "__add__",
            "__eq__",
            "__hash__",
            "encode",
            "__bool__",
        )
        evil_text = type("Text", (str,), dict.fromkeys(names, no))
        kind = type(
            "Says",
            (Exception,),
            {"__str__": lambda _: evil_text("the text"), "__module__": "builtins"},
        )
        assert describe(kind()) == ("Says: the text", "Says: the text\n")
        for other in (5, b"text", None, evil_text):
            none = type(
                "Says",
                (Exception,),
                {"__str__": lambda _, other=other: other, "__module__": "builtins"},
            )
            assert describe(none()) == (
                "Says: its text cannot be read",
                "Says: <exception str() failed>\n",
            )

    @pytest.mark.parametrize(
        "fields",
        [
            ("f", 1, 1, 5),
            (5, "x", [], {}),
            (b"f", 1.5, "1", "x = 1"),
            ("f", 10**5000, 10**5000, "x", 10**5000, 10**5000),
            ("f", 1, -(10**9), "x", 1, 10**9),
            ("f", 1, 10**8, "x" * 100, 1, 10**9),
            (object, object, object, object),
        ],
    )
    def test_a_syntax_error_with_odd_fields_keeps_the_others(
        self, fields: tuple[object, ...]
    ) -> None:
        reason, trace = describe(SyntaxError("bad", fields))
        assert reason.startswith("SyntaxError: ")
        assert re.search(r"^SyntaxError: bad( \(.{1,30}\))?\n\Z", trace, re.MULTILINE)
        assert len(trace) < 500

    @ALL
    def test_a_syntax_error_whose_fields_raise_keeps_the_others(
        self, raises: type[BaseException]
    ) -> None:
        def no(*_: object, **__: object) -> Any:
            raise raises("no")

        methods = dict.fromkeys(
            ("__str__", "__repr__", "__index__", "__eq__", "__format__", "__hash__", "rstrip"), no
        )
        text, number, thing = (type("Evil", (base,), methods) for base in (str, int, object))
        error = SyntaxError(
            "bad", (text("f"), number(1), number(1), text("x = 1"), number(1), number(2))
        )
        assert describe(error)[1].endswith(
            '  File "f", line 1\n    x = 1\n    ^\nSyntaxError: bad\n'
        )
        for name in ("msg", "filename", "lineno", "offset", "text", "end_lineno", "end_offset"):
            setattr(error, name, thing())
        assert describe(error)[1].endswith("SyntaxError: <no detail available>\n")

    def test_a_source_that_cannot_be_read_loses_only_its_line(self) -> None:
        class Loader:
            def get_source(self, _name: str) -> str:
                raise SystemExit("no source")

        module = ModuleType("acme")
        module.__dict__.update(__loader__=Loader(), __name__="acme")
        exec(
            compile("def fail():\n    raise ValueError('x')", "/nowhere/acme.py", "exec"),
            module.__dict__,
        )
        _, trace = describe(thrown(module.fail))
        assert '  File "/nowhere/acme.py", line 2, in fail\nValueError: x\n' in trace
        assert ", in thrown\n" in trace

    def test_half_a_surrogate_pair_can_be_written(self) -> None:
        kind = type("Odd", (Exception,), {"__module__": "builtins"})
        kind.__qualname__ = "Odd\ud800"
        error = kind("cut \ud83d")
        error.add_note("\udfff")
        assert describe(error) == ("Odd: cut ?", "Odd?: cut ?\n?\n")


class TestWork:
    def test_only_the_causes_that_are_kept_are_read_of_ten_thousand(self) -> None:
        reads = 0

        class Counted(Exception):
            def __str__(self) -> str:
                nonlocal reads
                reads += 1
                return "no"

        error: BaseException = Counted()
        for _ in range(10_000):
            later = Counted()
            later.__cause__ = error
            error = later
        _, trace = describe(error)
        assert len(trace) == KEPT
        assert trace.endswith("Counted: no\n")
        assert reads < 200

    def test_only_the_groups_that_are_kept_are_read_of_a_wide_and_deep_tree(self) -> None:
        reads = 0

        class Counted(Exception):
            def __str__(self) -> str:
                nonlocal reads
                reads += 1
                return "no"

        group: BaseException = Counted()
        for _ in range(9):
            group = BaseExceptionGroup("of many", [group] * 15)
        _, trace = describe(group)  # 15^9 members
        assert len(trace) == KEPT
        assert reads < 200

    def test_ten_thousand_groups_inside_of_each_other_end_where_traceback_ends(self) -> None:
        group: BaseException = ValueError("innermost")
        for _ in range(10_000):
            group = BaseExceptionGroup("of one", [group])
        _, trace = describe(group)
        assert "... (max_group_depth is 10)\n" in trace

    @pytest.mark.parametrize("place", ["text", "note", "cause", "member", "name"])
    def test_a_hundred_megabytes_of_text_are_not_copied(self, place: str) -> None:
        text = "x" * 100_000_000
        error: BaseException = ValueError(text if place == "text" else "short")
        if place == "note":
            error.add_note(text)
        elif place == "cause":
            error.__cause__ = KeyboardInterrupt(text)
        elif place == "member":
            error = ExceptionGroup("short", [ValueError(text)])
        elif place == "name":
            error = type("A" * 1_000_000, (Exception,), {})("short")
        tracemalloc.start()
        try:
            reason, trace = describe(error)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 8_000_000
        assert len(reason.encode()) <= 1024
        assert len(trace) <= KEPT

    def test_a_million_notes_and_a_cycle_of_causes_end(self) -> None:
        error, other = ValueError("x"), ValueError("y")
        error.__notes__ = ["note"] * 1_000_000
        error.__cause__, other.__context__ = other, error
        assert len(describe(error)[1]) == KEPT
        assert describe(other)[1].count("ValueError: y") == 1

    def test_an_exception_raised_again_and_again_is_read_as_far_as_it_makes_sense(self) -> None:
        """An exception that a module raises again and again keeps the frames of all its raises."""
        error = ValueError("x")
        for _ in range(30_000):
            thrown(lambda: throw(error))
        _, trace = describe(error)
        assert trace.endswith("  [Further frames are left out]\nValueError: x\n")


def test_the_first_frames_of_some_files_are_removed_and_the_others_kept() -> None:
    error = thrown(lambda: deep(2))
    code = compile("def call(function): function()", "ours.py", "exec")
    ours: dict[str, Any] = {}
    exec(code, ours)
    error = thrown(lambda: ours["call"](lambda: throw(error)))
    frames = traceback.extract_tb(error.__traceback__)
    assert [frame.name for frame in frames][:4] == ["thrown", "<lambda>", "call", "<lambda>"]
    assert remove_frames_of(error, {"ours.py"}) is error
    assert traceback.extract_tb(error.__traceback__) == frames, "they are not the first"
    remove_frames_of(error, {__file__, "ours.py"})
    assert error.__traceback__ is None


def test_frames_are_taken_from_an_exception_whose_attributes_raise() -> None:
    error = thrown(lambda: throw(evil(SystemExit, "__getattribute__", "__setattr__")("x")))
    remove_frames_of(error, {__file__})
    assert describe(error)[1] == f"{__name__}.Evil: x\n"

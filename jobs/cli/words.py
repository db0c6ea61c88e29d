"""A command from a typed function: its signature defines the arguments, its docstring documents them.

Parameters before `/` are positional; those between `/` and `*` say what is computed and are written `key=value`,
lists with commas, the fields of a dataclass separately; those after `*` say where it goes or how it is shown and are `--flags`.
A parameter `words` before `/` takes all other arguments, for commands that take run.py's settings.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import EnumType
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from typer.core import TyperCommand

from data.outgoing import said
from echo.refusals import brief, nearest_of

LISTS = (Sequence[str], tuple[str, ...])
MOST = 10**9
"""Largest integer on a command line, except seeds, unless a parameter has a smaller limit."""
KEY = re.compile(r"[A-Za-z_][\w.]*")


class CommandForm:
    """A function's arguments by form: positional, `key=value`, `--flags`; groups: dataclasses and their fields."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.arguments, self.settings, self.flags = dict[str, Parameter](), dict[str, Parameter](), dict[str, Parameter]()
        self.groups: dict[str, tuple[type, list[str]]] = {}
        for name, parameter in inspect.signature(function, eval_str=True).parameters.items():
            kind = parameter.annotation
            if parameter.kind is Parameter.POSITIONAL_ONLY:
                self.arguments[name] = parameter
            elif parameter.kind is Parameter.KEYWORD_ONLY:
                self.flags[name] = parameter
            elif dataclasses.is_dataclass(kind) and isinstance(kind, type):
                members = inspect.signature(kind, eval_str=True).parameters
                self.groups[name] = kind, list(members)
                self.settings |= {key: one.replace(default=getattr(parameter.default, key, one.default)) for key, one in members.items()}
            else:
                self.settings[name] = parameter
        self.known = {**self.arguments, **self.settings, **self.flags}
        self.free = "words" in self.arguments  # settings of a run are accepted too
        self.forms = [*(f"{name}=" for name in self.settings), *map(_flag, self.flags)]

    def written(self, name: str) -> str:
        """The written form of a parameter, before its value."""
        return f"{name}=" if name in self.settings else f"{_flag(name)} " if name in self.flags else ""

    def call(self, values: Mapping[str, Any]) -> Any:
        """Call the function with parsed values."""
        for name, value in values.items():
            if isinstance(value, int) and abs(value) > MOST and name != "seed":
                raise ValueError(f"{self.written(name)}{brief(value)}: {MOST} at most; nearest is {self.written(name)}{MOST}")
        plain = {name: _listed(self.known[name], value) for name, value in values.items()}
        for name, (kind, members) in self.groups.items():
            plain[name] = kind(**{member: plain.pop(member) for member in members})
        words = [plain.pop(name) for name in self.arguments]
        return self.function(*words, **plain)

    def translated(self, word: str) -> str:
        """An argument for typer: the function's own `key=value` becomes an option. Raises ValueError for the wrong form."""
        key, equals, value = word.partition("=")
        flag = key.removeprefix("--").replace("-", "_")
        if key.startswith("--") and flag in self.settings:
            raise ValueError(f"{word}: it says what is computed, which is written key=value; nearest is {flag}={value or 'VALUE'}")
        if not equals or not KEY.fullmatch(key):
            return word
        if key in self.settings:
            return f"--{key}={value}"
        if key in self.flags:
            form = _flag(key) if self.flags[key].annotation is bool else f"{_flag(key)} {value or 'VALUE'}"
            raise ValueError(f"{word}: it says where it goes or how it is shown, which is a flag; nearest is {form}")
        if self.free or (self.arguments and Path(word).exists()):
            return word
        raise ValueError(f"{word}: not understood; {nearest_of(key + '=', self.forms)}")


class KeyValue(TyperCommand):
    """A command that takes `key=value` besides flags, and documents both."""

    form: CommandForm

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse arguments with typer. Raises ValueError in one line for an invalid one."""
        for before, word in zip(["", *args], args):
            if not word.strip() or word.startswith("--") and word.endswith("="):
                raise ValueError(
                    f"{before if not word.strip() else word} : nothing is said, as by a variable that is not set; leave it out"
                )
        words = [self.form.translated(word) for word in args]
        try:
            return super().parse_args(ctx, words)
        except typer.BadParameter as error:
            raise ValueError(self._refusal(error, args)) from None
        except typer.TyperException as error:
            extra = re.search(r"unexpected extra argument\S* \((\S+).*\)$|No such option: (\S+)", error.format_message())
            if extra is None:
                raise
            word = extra[1] or extra[2]
            kinds = [name for name in getattr(ctx.parent and ctx.parent.command, "commands", {}) if name]
            raise ValueError(f"{word}: not understood; {nearest_of(word, [*self.form.forms, *kinds])}") from None

    def _refusal(self, error: typer.BadParameter, args: Sequence[str]) -> str:
        """Message for a value of the wrong type."""
        name = str(error.param.name) if error.param is not None else ""
        written = self.form.written(name)
        if type(error) is not typer.BadParameter:
            return f"{written.rstrip() or name.upper()}: it is missing; `echo-harness {self.name} --help` has an example"
        pairs = {word.partition("=")[0]: word.partition("=")[2] if "=" in word else after for word, after in zip(args, [*args[1:], ""])}
        value = pairs[written.rstrip("= ")] if written else next(word for word in args if "=" not in word and not word.startswith("-"))
        return f"{written}{value}: {_rule(self.form.known[name], value)}"

    def format_usage(self, ctx: Any, formatter: Any) -> None:
        """One line: positional arguments, then placeholders of settings and flags."""
        pieces = [piece for one in self.get_params(ctx) if one.param_type_name == "argument" for piece in one.get_usage_pieces(ctx)]
        pieces += ["[KEY=VALUE ...]"] if self.form.settings or self.form.free else []
        formatter.write_usage(" ".join(ctx.command_path.split()), " ".join([*pieces, "[--FLAG ...]"]))

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Positional arguments, settings and flags."""
        rows: dict[str, list[tuple[str, str]]] = {"Words": [], "Settings (key=value)": [], "Flags": []}
        for parameter in self.get_params(ctx):
            name, text = parameter.get_help_record(ctx) or ("", "")
            if parameter.name in self.form.settings:
                rows["Settings (key=value)"].append((name.removeprefix("--").replace(" ", "=", 1), text))
            else:
                rows["Words" if parameter.param_type_name == "argument" else "Flags"].append((name, text))
        for title, lines in rows.items():
            if lines:
                with formatter.section(title):
                    formatter.write_dl(lines)
        kinds = getattr(ctx.parent and ctx.parent.command, "commands", {})
        if "" in kinds and self.name == ctx.parent.command.name:
            with formatter.section("Other kinds, each with its own --help"):
                formatter.write_dl([(one.name, one.help) for name, one in kinds.items() if name])


def command(name: str, target: str) -> KeyValue:
    """The command of a function, `module:function`; the module is imported now."""
    module, _, attribute = target.partition(":")
    function = getattr(importlib.import_module(module), attribute)
    form = CommandForm(function)
    text, meanings = described(inspect.getdoc(function) or "")
    for kind, _ in form.groups.values():
        meanings = described(inspect.getdoc(kind) or "")[1] | meanings

    def carry_out(**values: Any) -> int:
        return told(form.call(values))

    carry_out.__signature__ = inspect.Signature([*_typed(form, meanings)])  # type: ignore[attr-defined]
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    extra = {"ignore_unknown_options": True} if form.free else {}
    app.command(name, cls=KeyValue, help=text, context_settings=extra)(carry_out)
    made: Any = typer.main.get_command(app)
    made.form = form
    return made


def told(answer: int | str | Iterable[str] | None) -> int:
    """Print a function's lines as they come; returns the exit status, which the function may return itself."""
    if isinstance(answer, int):
        return answer
    for line in [answer] if isinstance(answer, str) else answer or ():
        print(said(line), flush=True)
    return 0


def described(doc: str) -> tuple[str, dict[str, str]]:
    """A docstring's text before its sections, with indented lines unchanged, and the meaning of each argument."""
    before, _, rest = doc.partition("\nArgs:\n")
    before = re.split(r"\n(?:Returns|Raises|Attributes):\n", before)[0]
    parts = [("\b\n" + part if part.startswith("    ") else part) for part in before.strip().split("\n\n")]
    meanings, name = dict[str, str](), ""
    for line in re.split(r"\n(?:Returns|Raises):\n", rest or doc.partition("\nAttributes:\n")[2])[0].splitlines():
        entry = re.fullmatch(r" {4}(\w+): (.*)", line)
        if entry:
            name, meanings[entry[1]] = entry[1], entry[2]
        elif name and line.strip():
            meanings[name] += f" {line.strip()}"
    return "\n\n".join(parts), meanings


def _typed(form: CommandForm, meanings: Mapping[str, str]) -> Iterator[Parameter]:
    """The parameters with typer's annotations."""
    for name, one in form.known.items():
        many, default = one.annotation in LISTS, one.default
        if name in form.arguments:
            default = None if many and (default is not Parameter.empty or name == "words") else default
            kind: Any = list[str] | None if default is None else list[str]
            about: Any = typer.Argument(
                help=meanings.get(name), show_default=False, metavar=f"{name.upper()} ..." if many else name.upper()
            )
        else:
            default, kind = ",".join(default) if isinstance(default, Sequence) and not isinstance(default, str) else default, str
            metavar, shown = None if one.annotation is bool else _form(one.annotation), default not in ("", None, False)
            flag = f"--{name}" if name in form.settings else _flag(name)
            about = typer.Option(flag, help=meanings.get(name), metavar=metavar, show_default=shown)
        yield Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind if many else one.annotation, about])


def _parts(annotation: Any) -> list[Any]:
    """The types of an annotation, without None."""
    parts = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    return [part for part in parts if part is not types.NoneType]


def _choices(annotation: Any) -> list[str]:
    """The allowed values of a parameter; empty if any value is allowed."""
    return [
        str(choice)
        for part in _parts(annotation)
        for choice in (get_args(part) if get_origin(part) is Literal else part if isinstance(part, EnumType) else ())
        if choice != ""
    ]


def _rule(parameter: Parameter, value: str) -> str:
    """The expected type of a parameter, and an example."""
    if choices := _choices(parameter.annotation):
        return nearest_of(value, choices)
    rule = {int: "a whole number", float: "a number", Path: "a path"}.get(_parts(parameter.annotation)[0], "a word")
    default = parameter.default
    return f"{rule} is expected" + ("" if default in (None, "", Parameter.empty) else f", for example {default}")


def _form(annotation: Any) -> str:
    """The placeholder after a key in a help."""
    names = {int: "N", float: "NUMBER", Path: "PATH"}
    return "|".join(_choices(annotation)) or ("A,B" if annotation in LISTS else names.get(_parts(annotation)[0], "TEXT"))


def _listed(one: Parameter, value: Any) -> Any:
    """A list from a value with commas."""
    if one.annotation not in LISTS:
        return value
    return tuple(filter(None, value.split(","))) if isinstance(value, str) else tuple(value or ())


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"

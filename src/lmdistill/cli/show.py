"""`lmdistill show KIND NAME`."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import textwrap
import types
import typing
from typing import Annotated, Any, Literal

import typer

from lmdistill import config, registry


@dataclasses.dataclass(frozen=True)
class Setting:
    """One line of what a component can be told; `name` is dotted where settings are nested."""

    name: str
    type: str
    default: Any
    required: bool
    choices: tuple[str, ...]
    help: str


def command(
    kind: Annotated[str, typer.Argument(help="A kind, as `lmdistill list` names them.")],
    name: Annotated[str, typer.Argument(help="A name, as `lmdistill list KIND` names it.")],
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False,
) -> None:
    """Show what a component is and every setting it has: type, default and choices."""
    found = registry.load(kind, name)
    text = inspect.cleandoc(inspect.getdoc(found) or "")
    settings = list(settings_of(found)) if dataclasses.is_dataclass(found) else []
    functions = functions_of(found) if inspect.ismodule(found) else {}
    if as_json:
        listed = [dataclasses.asdict(setting) for setting in settings]
        value = {"kind": kind, "name": name, "doc": text, "settings": listed, "functions": functions}
        print(json.dumps(value, ensure_ascii=False, indent=2))
        return
    print(f"{name} ({kind})\n\n{text}")
    if settings:
        print("\nSettings:")
    for setting in settings:
        print("\n".join(_lines(setting)))
    for function, line in functions.items():
        print(f"\n{function}\n    {line}")


def _lines(setting: Setting) -> list[str]:
    default = "required" if setting.required else f"default {json.dumps(setting.default, ensure_ascii=False)}"
    lines = [f"  {setting.name}: {setting.type}, {default}"]
    if setting.choices:
        lines += textwrap.wrap(
            f"one of {', '.join(setting.choices)}", 110, initial_indent=" " * 6, subsequent_indent=" " * 8
        )
    if setting.help:
        lines += textwrap.wrap(setting.help, 110, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return lines


def settings_of(cls: Any, prefix: str = "", preferred: Any = None) -> typing.Iterator[Setting]:
    """Every setting of a settings dataclass; nested dataclasses are opened.

    `preferred` is an instance whose values are the defaults here: what a recipe prefers to those of the class.
    """
    hints = typing.get_type_hints(cls)
    helps = _field_docs(cls)
    for field in dataclasses.fields(cls):
        if not field.init:
            continue
        kind = field.metadata.get("kind")
        default, required = _default(field) if preferred is None else (_brief(getattr(preferred, field.name)), False)
        hint = hints[field.name]
        if kind is None and dataclasses.is_dataclass(hint):
            yield from settings_of(hint, f"{prefix}{field.name}.", _instance(field, preferred))
            continue
        if kind:
            several = "names" if "tuple" in str(hint) else "a name"
            shown, choices = f"{several} of `lmdistill list {kind}`", tuple(registry.names(kind))
        else:
            shown, choices = _type_name(hint), _choices(hint)
        yield Setting(prefix + field.name, shown, default, required, choices, helps.get(field.name, ""))


def _instance(field: dataclasses.Field[Any], preferred: Any) -> Any:
    """What stands in a field of settings if nothing is said, or None where something must be said."""
    if preferred is not None:
        return getattr(preferred, field.name)
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else None


def _default(field: dataclasses.Field[Any]) -> tuple[Any, bool]:
    if field.default is not dataclasses.MISSING:
        return _brief(field.default), False
    if field.default_factory is not dataclasses.MISSING:
        return _brief(field.default_factory()), False
    return None, True


def _brief(value: Any) -> Any:
    """A default as one would write it: a component by its name, with what differs from that component's defaults."""
    if isinstance(value, tuple | list):
        return [_brief(item) for item in value]
    written = config.settings_of(value)
    if not (dataclasses.is_dataclass(value) and isinstance(written, dict) and "name" in written):
        return written
    plain = {field.name: _default(field)[0] for field in dataclasses.fields(value)}
    changed = {name: item for name, item in written.items() if name != "name" and item != plain[name]}
    return {"name": written["name"], **changed} if changed else written["name"]


def _type_name(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return "choice"
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join("nothing" if part is type(None) else _type_name(part) for part in typing.get_args(hint))
    if isinstance(hint, type) and not typing.get_args(hint):
        return hint.__name__
    return str(hint).replace("typing.", "").replace("collections.abc.", "")


def _choices(hint: Any) -> tuple[str, ...]:
    if typing.get_origin(hint) is Literal:
        return tuple(str(argument) for argument in typing.get_args(hint))
    return tuple(choice for part in typing.get_args(hint) for choice in _choices(part))


def _field_docs(cls: type) -> dict[str, str]:
    """The string that follows each field in the source, inherited fields included."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(tree, ast.ClassDef)
        for before, after in zip(tree.body, tree.body[1:], strict=False):
            is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            if isinstance(before, ast.AnnAssign) and isinstance(before.target, ast.Name) and is_text:
                found[before.target.id] = " ".join(str(after.value.value).split())  # type: ignore[attr-defined]
    return found


def functions_of(module: types.ModuleType) -> dict[str, str]:
    """The public functions of a module, each with its signature and first line."""
    return {
        f"{name}{inspect.signature(value)}".replace("'", ""): (inspect.getdoc(value) or "").partition("\n")[0]
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
    }

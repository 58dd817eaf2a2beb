"""The program `lmdistill`: finds the commands, runs one, and turns errors into a message and an exit code.

Exit codes: 0 done; 1 a bug, or a broken pipe; 2 the user's to mend; 3 the teacher gave up; 4 the budget is spent;
5 some cells of a comparison failed; 130 interrupted.
"""

from __future__ import annotations

import ast
import errno
import importlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import lmdistill
from lmdistill.errors import LmdistillError, UnknownName

PLAIN: dict[str, Any] = {"add_completion": False, "rich_markup_mode": None, "pretty_exceptions_enable": False}


def command_files() -> dict[str, Path]:
    """Every command and its file."""
    folder = Path(__file__).parent
    files = [path for path in sorted(folder.glob("*.py")) if not path.stem.startswith("_") and path.stem != "main"]
    return {path.stem.rstrip("_").replace("_", "-"): path for path in files}


class Commands(TyperGroup):
    """A group whose commands are imported when they are called; `--help` reads their first line without importing."""

    listing = False

    def list_commands(self, ctx: Any) -> list[str]:
        return list(command_files())

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        path = command_files().get(cmd_name)
        if path is None:
            raise UnknownName("command", cmd_name, command_files())
        if self.listing:
            return _built(cmd_name, lambda: None, help=_first_line(path))
        module = importlib.import_module(f"lmdistill.cli.{path.stem}")
        group = getattr(module, "app", None)
        return _built(cmd_name, module.command) if group is None else typer.main.get_command(group)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        self.listing = True
        try:
            super().format_help(ctx, formatter)
        finally:
            self.listing = False

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except LmdistillError as error:
            fail(str(error), error.exit_code)
        except KeyboardInterrupt:
            fail("interrupted; the same command goes on from here", 130)
        except Exception as error:
            if not disk_is_full(error):
                raise
            fail(f"the disk is full ({error}); free some space and run the same command again", 2)


def _built(name: str, function: Any, **options: Any) -> Any:
    app = typer.Typer(**PLAIN)
    app.command(name, **options)(function)
    return typer.main.get_command(app)


def _first_line(path: Path) -> str:
    """The first line of a command's docstring, else of its file's."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "command"]
    found = [doc for function in functions if (doc := ast.get_docstring(function))]
    return (found[0] if found else ast.get_docstring(tree) or "").partition("\n")[0]


def fail(message: str, code: int) -> None:
    """Say what went wrong on stderr and leave."""
    print(f"lmdistill: {message}", file=sys.stderr)
    raise SystemExit(code)


def disk_is_full(error: BaseException) -> bool:
    """Whether an error, or one that led to it, says that nothing more can be written."""
    words = ("no space left on device", "database or disk is full", "disk quota exceeded")
    return any(
        (isinstance(one, OSError) and one.errno in (errno.ENOSPC, errno.EDQUOT))
        or any(word in str(one).casefold() for word in words)
        for one in _chain(error)
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


app = typer.Typer(cls=Commands, no_args_is_help=True, **PLAIN)


def _version(asked: bool) -> None:
    if asked:
        print(f"lmdistill {lmdistill.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    """Turn a large language model's answers and its reasoning into a small model that you own."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point of the program."""
    app(args=None if arguments is None else list(arguments), prog_name="lmdistill")

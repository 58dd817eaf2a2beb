from __future__ import annotations

import errno
import json
import os
import resource
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

import lmdistill
from lmdistill import config, registry, store
from lmdistill.cli import _table, show
from lmdistill.cli.main import command_files, disk_is_full, main
from lmdistill.config import component
from lmdistill.curation import Curation
from lmdistill.errors import BudgetReached, ConfigError, StoreError, TeacherError
from lmdistill.recipes import Recipe
from lmdistill.types import Estimate, Report

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Run the program in this process: exit code, stdout, stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else 0 if left.code is None else 1
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


@dataclass(frozen=True)
class Inner:
    """Settings inside settings."""

    steps: int = 100
    """How many steps are
    made."""
    schedule: Literal["linear", "constant"] = "linear"


@dataclass(frozen=True)
class Toy(Recipe):
    """A recipe for tests.

    Second paragraph.
    """

    task: str
    """What it is about."""
    curation: tuple[Curation, ...] = component("curation", ("correct",))
    train: Inner = field(default_factory=Inner)
    error: str = ""

    def run(self, out: Path) -> Report:
        if self.error:
            raise ERRORS[self.error]
        with store.stage(out / "stage", "toy", settings={"task": self.task}) as opened:
            if not opened.done:
                store.write_text(opened.path("rows.txt"), self.task)
        report = Report(
            "toy",
            {"accuracy": Estimate(0.51234, 0.4, 0.6, 1200), "nll": Estimate(1234.5, 1000.0, 2000.0, 3)},
            {"rows": 1200},
            {"task": self.task},
        )
        store.write_json(out / "report.json", report)
        return report


ERRORS: dict[str, BaseException] = {
    "config": ConfigError(["a is wrong", "b is wrong"]),
    "teacher": TeacherError("the endpoint says no"),
    "budget": BudgetReached("the next request would pass $1.00"),
    "interrupt": KeyboardInterrupt(),
    "full": OSError(errno.ENOSPC, "No space left on device"),
    "bug": ZeroDivisionError("a bug"),
}


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    real = registry.load
    monkeypatch.setattr(
        registry, "load", lambda kind, name: Toy if (kind, name) == ("recipes", "toy") else real(kind, name)
    )


# --- the program ---


def test_help_is_instant_and_imports_no_command() -> None:
    program = [sys.executable, "-X", "importtime", "-m", "lmdistill", "--help"]
    best = 9.0
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        told = subprocess.run(program, capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        best = min(best, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert best < 0.5, f"lmdistill --help took {best:.2f} s"  # processor time: other work on the machine does not count
    imported = {line.rpartition("|")[2].strip() for line in told.stderr.splitlines()}
    assert "lmdistill.cli.main" in imported
    assert not {name for name in imported if name.startswith("lmdistill.cli.") and name != "lmdistill.cli.main"}
    assert not imported & {"torch", "transformers", "numpy", "aiohttp", "jinja2", "yaml", "rich"}
    for name in command_files():
        assert f"  {name} " in told.stdout


def test_every_command_says_what_it_does(call: Call) -> None:
    code, out, _ = call("--help")
    assert code == 0
    listed = out[out.index("Commands:") :]
    for name in command_files():
        (line,) = [line for line in listed.splitlines() if line.split()[:1] == [name]]
        assert len(line.split()) > 3, f"{name}: its file or its function `command` needs a docstring"


@pytest.mark.parametrize("name", list(command_files()))
def test_every_command_has_help(call: Call, name: str) -> None:
    code, out, err = call(name, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: lmdistill {name}")


def test_version(call: Call) -> None:
    assert call("--version") == (0, f"lmdistill {lmdistill.__version__}\n", "")


def test_python_m_and_the_script_are_the_same_program() -> None:
    module = subprocess.run([sys.executable, "-m", "lmdistill", "list"], capture_output=True, text=True, check=True)
    assert module.stdout.split() == list(registry.KINDS)


def test_usage_errors_exit_2(call: Call) -> None:
    for arguments in ((), ("nosuch",), ("list", "--nosuch"), ("run", "toy"), ("list", "nosuch")):
        code, out, err = call(*arguments)
        assert code == 2, arguments
        assert out == "" or not arguments
        assert "Traceback" not in err
    assert "unknown command 'lst'; did you mean 'list'?" in call("lst")[2]


def test_a_closed_pipe_is_no_traceback() -> None:
    program = f"{sys.executable} -m lmdistill list tasks | head -n 1"
    told = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True)
    assert "Traceback" not in told.stderr
    assert told.stdout.strip() == registry.names("tasks")[0]


# --- list and show ---


@pytest.mark.parametrize("kind", registry.KINDS)
def test_list_prints_one_name_per_line(call: Call, kind: str) -> None:
    assert call("list", kind) == (0, "".join(f"{name}\n" for name in registry.names(kind)), "")


@pytest.mark.usefixtures("toy")
def test_show_tells_type_default_and_choices(call: Call) -> None:
    code, out, _ = call("show", "recipes", "toy")
    assert code == 0
    assert (
        out
        == f"""toy (recipes)

A recipe for tests.

Second paragraph.

Settings:
  task: str, required
      What it is about.
  curation: names of `lmdistill list curation`, default ["correct"]
{indented("one of " + ", ".join(registry.names("curation")))}
  train.steps: int, default 100
      How many steps are made.
  train.schedule: choice, default "linear"
      one of linear, constant
  error: str, default ""
"""
    )


def test_show_tells_what_a_recipe_prefers_to_the_defaults_of_its_parts(call: Call) -> None:
    _, out, _ = call("show", "recipes", "kard")
    told = {
        line.strip().partition(":")[0]: line.rpartition("default ")[2]
        for line in out.splitlines()
        if "default " in line
    }
    recipe = config.build(registry.load("recipes", "kard"), {"task": "sums", "teacher": "scripted"})
    assert told["sampling.n"] == str(recipe.sampling.n) == "10"
    assert told["train.epochs"] == "3" and told["train.schedule"] == '"constant"'
    assert told["grounding.passages"] == "1" and "late_interaction" in told["grounding.reranker"]
    assert told["grounding.reranking.train.batch_size"] == str(recipe.grounding.reranking.train.batch_size)
    assert told["train.clip"] == str(recipe.train.clip), "and the part's own where the recipe prefers none"


def indented(text: str) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, 110, initial_indent=" " * 6, subsequent_indent=" " * 8))


@pytest.mark.usefixtures("toy")
def test_show_as_json(call: Call) -> None:
    told = json.loads(call("show", "recipes", "toy", "--json")[1])
    assert (told["kind"], told["name"]) == ("recipes", "toy")
    assert told["settings"][3] == {
        "name": "train.schedule",
        "type": "choice",
        "default": "linear",
        "required": False,
        "choices": ["linear", "constant"],
        "help": "",
    }


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in registry.KINDS for name in registry.names(kind)])
def test_show_works_for_every_component(call: Call, kind: str, name: str) -> None:
    code, out, err = call("show", kind, name)
    if code == 2:
        assert "needs the package" in err
        return
    assert out.startswith(f"{name} ({kind})\n\n")
    assert json.loads(call("show", kind, name, "--json")[1])["doc"]


def test_show_functions_of_a_loss(call: Call) -> None:
    out = call("show", "losses", "token")[1]
    assert "token_nll(logits: Tensor, labels: Tensor" in out


def test_types_as_people_read_them() -> None:
    assert show._type_name(str | None) == "str or nothing"
    assert show._type_name(tuple[int, ...]) == "tuple[int, ...]"
    assert show._type_name(Literal["a"] | int) == "choice or int"
    assert show._choices(tuple[Literal["a", "b"], ...]) == ("a", "b")


# --- run ---


@pytest.mark.usefixtures("toy")
def test_run_prints_a_table_and_where_the_report_is(call: Call, tmp_path: Path) -> None:
    code, out, err = call("run", "toy", "--set", "task=nli", "--out", tmp_path / "o")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "toy",
        "metric    value   95 % interval      n",
        "accuracy  0.512  0.400 to 0.600  1,200",
        "nll       1,234  1,000 to 2,000      3",
        "rows: 1,200",
        f"report: {tmp_path / 'o' / 'report.json'}",
    ]
    assert json.loads((tmp_path / "o" / "report.json").read_text())["metrics"]["accuracy"]["n"] == 1200


@pytest.mark.usefixtures("toy")
def test_run_as_json_writes_nothing_else_on_stdout(call: Call, tmp_path: Path) -> None:
    out = call("run", "toy", "-s", "task=nli", "-o", tmp_path / "o", "--json")[1]
    assert json.loads(out)["metrics"]["nll"]["value"] == 1234.5


@pytest.mark.usefixtures("toy")
def test_run_file_and_sets(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("recipe: toy\ntask: from the file\ntrain: {steps: 3}\n")
    assert call("run", "toy", "--config", path, "--out", tmp_path / "a")[0] == 0
    assert (tmp_path / "a/stage/rows.txt").read_text() == "from the file"
    assert call("run", "toy", "--config", path, "--set", "task=set", "--out", tmp_path / "b")[0] == 0
    assert (tmp_path / "b/stage/rows.txt").read_text() == "set"


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(
    ("content", "sets", "lines"),
    [
        ("tsak: x\ntrain: {stpes: 1}\n", [], ["tsak: unknown setting; did you mean 'task'?", "train.stpes: unknown"]),
        ("task: x\n", ["curation=[corect]"], ["curation[0]: unknown curation 'corect'; did you mean 'correct'?"]),
        ("task: x\n", ["train.steps=many"], ["train.steps: expected int, got 'many'"]),
        ("task: x\n", ["oops"], ["--set 'oops': expected key=value"]),
        ("recipe: dss\ntask: x\n", [], ["is a run file of the recipe 'dss', not 'toy'"]),
        ("task: [", [], ["run.yaml:1: is not YAML"]),
        ("task: ${NOT_SET_HERE}\n", [], ["${NOT_SET_HERE}, which is not set"]),
        ("", [], ["task: is required"]),
    ],
)
def test_bad_settings_exit_2_and_write_nothing(
    call: Call, tmp_path: Path, content: str, sets: list[str], lines: list[str]
) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(content)
    arguments = [one for pair in sets for one in ("--set", pair)]
    code, out, err = call("run", "toy", "--config", path, *arguments, "--out", tmp_path / "o")
    assert (code, out) == (2, "")
    for line in lines:
        assert line in err
    assert "Traceback" not in err
    assert not (tmp_path / "o").exists()


def test_an_unknown_recipe_suggests_the_nearest(call: Call, tmp_path: Path) -> None:
    code, _, err = call("run", "fintune", "--out", tmp_path / "o")
    assert code == 2
    assert "unknown recipe 'fintune'; did you mean 'finetune'?" in err


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("toy")
def test_an_output_folder_of_another_run_is_left_alone(call: Call, tmp_path: Path) -> None:
    out = tmp_path / "o"
    assert call("run", "toy", "--set", "task=a", "--out", out)[0] == 0
    before = files(out)
    assert call("run", "toy", "--set", "task=a", "--out", out)[0] == 0  # the same run again
    code, _, err = call("run", "toy", "--set", "task=b", "--out", out)
    assert code == 2
    assert "belongs to another run: task was 'a', now 'b'" in err
    assert files(out) == before


@pytest.mark.usefixtures("toy")
def test_a_run_leaves_its_call_as_a_run_file(call: Call, tmp_path: Path) -> None:
    assert call("run", "toy", "--set", "task=yes", "--set", "train.steps=7", "--out", tmp_path / "a")[0] == 0
    recorded = tmp_path / "a/run.yaml"
    assert "recipe: toy" in recorded.read_text()
    assert call("run", "toy", "--config", recorded, "--out", tmp_path / "b")[0] == 0
    assert (tmp_path / "b/run.yaml").read_text() == recorded.read_text()
    assert (tmp_path / "b/stage/rows.txt").read_text() == "yes"


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("run.yaml", "recipe: dss\n", "holds a run of the recipe 'dss', not 'toy'"),
        ("run.yaml", "[1]\n", "holds a run of the recipe None, not 'toy'"),
        ("run.yaml", "a: [\n", "run.yaml:2: is not YAML"),
        ("report.json", "{}", "holds a report.json that no run of lmdistill wrote"),
    ],
)
def test_a_folder_of_another_recipe_is_refused_before_anything_is_asked(
    call: Call, tmp_path: Path, name: str, content: str, message: str
) -> None:
    (tmp_path / name).write_text(content)
    code, _, err = call("run", "toy", "--set", "task=a", "--out", tmp_path)
    assert code == 2
    assert message in err
    assert files(tmp_path) == {name: content.encode()}


@pytest.mark.usefixtures("toy")
def test_out_may_not_be_a_file(call: Call, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    code, _, err = call("run", "toy", "--set", "task=a", "--out", tmp_path / "file")
    assert (code, (tmp_path / "file").read_text()) == (2, "mine")
    assert "is a file; --out names a folder" in err


@pytest.mark.usefixtures("toy")
def test_a_damaged_manifest_exits_2(call: Call, tmp_path: Path) -> None:
    out = tmp_path / "o"
    call("run", "toy", "--set", "task=a", "--out", out)
    (out / "stage/manifest.json").write_text("{")
    before = files(out)
    code, _, err = call("run", "toy", "--set", "task=a", "--out", out)
    assert code == 2
    assert "manifest.json is damaged" in err
    assert files(out) == before


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        ("config", 2, "a is wrong\nb is wrong"),
        ("teacher", 3, "the endpoint says no"),
        ("budget", 4, "the next request would pass $1.00"),
        ("interrupt", 130, "interrupted"),
        ("full", 2, "the disk is full"),
    ],
)
def test_exit_codes(call: Call, tmp_path: Path, error: str, code: int, message: str) -> None:
    told, out, err = call("run", "toy", "--set", "task=a", "--set", f"error={error}", "--out", tmp_path / "o")
    assert (told, out) == (code, "")
    assert err.startswith("lmdistill: ")
    assert message in err
    assert "Traceback" not in err


@pytest.mark.usefixtures("toy")
def test_a_bug_keeps_its_traceback(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        main(["run", "toy", "--set", "task=a", "--set", "error=bug", "--out", str(tmp_path / "o")])


@pytest.mark.usefixtures("toy")
def test_a_full_disk_in_the_middle_keeps_what_was_there(call: Call, tmp_path: Path) -> None:
    out = tmp_path / "o"
    assert call("run", "toy", "--set", "task=a", "--out", out)[0] == 0
    before = files(out)
    (out / f".report.json.{os.getpid()}.part").symlink_to("/dev/full")  # the kernel answers ENOSPC
    code, _, err = call("run", "toy", "--set", "task=a", "--out", out)
    assert code == 2
    assert "No space left on device; what was there before is kept" in err
    assert files(out) == before


def test_every_way_in_which_libraries_say_that_the_disk_is_full() -> None:
    assert disk_is_full(OSError(errno.ENOSPC, "x"))
    assert disk_is_full(OSError(errno.EDQUOT, "x"))
    assert disk_is_full(RuntimeError("I/O error: No space left on device (os error 28)"))  # safetensors
    assert disk_is_full(sqlite3.OperationalError("database or disk is full"))
    outer = RuntimeError("while saving")
    outer.__cause__ = OSError(errno.ENOSPC, "x")
    assert disk_is_full(outer)
    assert not disk_is_full(OSError(errno.ENOENT, "x"))
    assert not disk_is_full(StoreError("folder belongs to another run"))


# --- tables ---


def test_a_terminal_gets_a_drawn_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(_table.sys.stdout, "isatty", lambda: True)
    _table.show_table(["metric", "value"], [["[bold]accuracy", "0.5"]], "title")
    out = capsys.readouterr().out
    assert "│" in out
    assert "[bold]accuracy" in out  # names are not markup
    assert "title" in out

"""The documentation is true: its code runs, its `--help` texts are today's, every source file has its line.

Run as a program, this file writes the generated parts anew (`make docs`).
"""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src/lmdistill"
DOCS = ROOT / "docs"


class Block(NamedTuple):
    """A fenced block: its language, its text, and the file it is, where a comment before it says so."""

    language: str
    text: str
    file: str
    line: int


def blocks_of(path: Path) -> Iterator[Block]:
    """The fenced code blocks of a Markdown file."""
    file, language, start, lines = "", None, 0, []  # type: ignore[var-annotated]
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        named = re.fullmatch(r"<!-- file: (\S+) -->", line)
        if language is None and named:
            file = named[1]
        elif language is None and line.startswith("```"):
            language, start, lines = line[3:].strip(), number, []
        elif language is not None and line == "```":
            yield Block(language, "\n".join(lines) + "\n", file, start)
            file, language = "", None
        elif language is not None:
            lines.append(line)
    assert language is None, f"{path}: the block of line {start} is not closed"


# --- how-to-add.md: the toys, written into a copy of the package ---


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A copy of the package with the files of how-to-add.md, an empty folder to work in, and its environment."""
    base = tmp_path_factory.mktemp("extended")
    shutil.copytree(SOURCE, base / "lmdistill", ignore=shutil.ignore_patterns("__pycache__"))
    for block in blocks_of(DOCS / "how-to-add.md"):
        if block.file:
            path = base / "lmdistill" / block.file
            assert not path.exists(), f"{block.file} is there already; choose another toy"
            path.write_text(block.text, encoding="utf-8")
    (base / "work").mkdir()
    return base / "work", {**os.environ, "PYTHONPATH": str(base)}


@pytest.mark.slow
def test_the_toys_of_how_to_add_work(extended: tuple[Path, dict[str, str]]) -> None:
    folder, environment = extended
    ran = 0
    for block in blocks_of(DOCS / "how-to-add.md"):
        if block.file or block.language not in ("python", "sh"):
            continue
        program = block.text
        if block.language == "sh":  # all commands in one process, so that torch is imported once
            lines = [shlex.split(line) for line in block.text.splitlines()]
            assert all(line[0] == "lmdistill" for line in lines)
            program = PROGRAM.format(commands=[line[1:] for line in lines])
        told = subprocess.run(
            [sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, text=True
        )
        assert told.returncode == 0, f"line {block.line}: {told.returncode} {told.stdout}{told.stderr}"
        ran += 1
    assert ran >= 4
    assert (folder / "predictions.jsonl").exists()


PROGRAM = """
from lmdistill.cli.main import main
for command in {commands!r}:
    try:
        main(command)
    except SystemExit as left:
        if left.code:
            raise SystemExit(f"{{command[0]}} left with {{left.code}}") from None
"""


@pytest.mark.slow
def test_the_contract_tests_accept_the_toys(extended: tuple[Path, dict[str, str]]) -> None:
    _, environment = extended
    toys = [Path(block.file).stem for block in blocks_of(DOCS / "how-to-add.md") if block.file]
    assert len(toys) >= 4
    contracts = [str(path) for path in sorted((ROOT / "tests/contract").glob("test_*.py")) if path.stem != "test_loop"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", " or ".join(toys), *contracts]
    told = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert told.returncode == 0, told.stdout
    passed = re.search(r"(\d+) passed", told.stdout)
    assert passed and int(passed[1]) >= 3 * len(toys), told.stdout


def test_the_toys_are_formatted_and_clean(tmp_path: Path) -> None:
    files = [(block.file.replace("/", "_"), block.text) for block in blocks_of(DOCS / "how-to-add.md") if block.file]
    for name, text in files:
        (tmp_path / name).write_text(text, encoding="utf-8")
    settings = ["--config", str(ROOT / "pyproject.toml"), str(tmp_path)]
    for verb in (["format", "--check"], ["check"]):
        told = subprocess.run([sys.executable, "-m", "ruff", *verb, *settings], capture_output=True, text=True)
        assert told.returncode == 0, told.stdout + told.stderr


# --- other pages: Python that runs as it stands, run files that are valid ---


def test_python_in_the_docs_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ran = 0
    for page in sorted(DOCS.rglob("*.md")):
        if page.name == "how-to-add.md":
            continue
        for block in blocks_of(page):
            if block.language == "python":
                exec(compile(block.text, f"{page.name}:{block.line}", "exec"), {"__name__": "docs"})
                ran += 1
    assert ran >= 1


def test_yaml_in_the_docs_is_yaml_and_run_files_are_valid() -> None:
    from lmdistill import config, registry, runfile

    seen = 0
    for page in (ROOT / "README.md", *sorted(DOCS.rglob("*.md"))):
        for block in blocks_of(page):
            if block.language != "yaml":
                continue
            settings = runfile.parse(block.text)
            if isinstance(settings, dict) and "recipe" in settings:
                config.build(registry.load("recipes", settings.pop("recipe")), settings)
                seen += 1
    assert seen >= 2


def test_the_comparison_in_the_docs_is_a_grid_that_its_recipes_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lmdistill import compare, grid

    monkeypatch.chdir(tmp_path)
    (mine,) = [block for block in blocks_of(DOCS / "compare.md") if block.file == "mine.yaml"]
    Path("mine.yaml").write_text(mine.text, encoding="utf-8")
    rows = [f"s{i},b{i},{'bug' if i % 2 else 'question'}" for i in range(60)]
    Path("tickets.csv").write_text("\n".join(["subject,body,kind", *rows]) + "\n", encoding="utf-8")
    cells = grid.cells_of(compare.read(Path("mine.yaml")), tmp_path / "out")
    assert len(cells) == 3 * 2 * 2 * 3 * 2


@pytest.mark.slow
def test_the_example_of_the_readme_runs_on_a_table(tmp_path: Path) -> None:
    """As it stands, but with recorded answers for the teacher and a tiny student for a few steps."""
    (mail,) = [block for block in blocks_of(ROOT / "README.md") if block.file == "mail.yaml"]
    (tmp_path / "mail.yaml").write_text(mail.text, encoding="utf-8")
    lines, answers = ["subject,body,kind"], []
    for number in range(60):
        spam = number % 3 == 0
        subject, body = (f"You won {number}", "Send your card.") if spam else (f"Lunch {number}", "At noon?")
        lines.append(f"{subject},{body},{'spam' if spam else 'ham'}")
        said = "Nobody asks a friend for a bank card" if spam else "A friend proposes a time to meet"
        kind = "spam" if spam else "ham"
        answers.append(json.dumps({"input": f"{subject}\n{body}", "llm_raw": f"{said}. So the answer is {kind}."}))
    (tmp_path / "mail.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (tmp_path / "answers.jsonl").write_text("\n".join(answers) + "\n", encoding="utf-8")
    sets = [
        "teacher={name: replay, path: answers.jsonl, match: input}",
        "student={name: seq2seq, preset: tiny}",
        "train={steps: 4, eval_every: 2, batch_size: 8, device: cpu}",
    ]
    command = [sys.executable, "-m", "lmdistill", "run", "dss", "--config", "mail.yaml", "--out", "runs/mail"]
    command += [part for one in sets for part in ("--set", one)]
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert "accuracy" in told.stdout
    assert told.stdout.rstrip().endswith("report: runs/mail/report.json")
    assert (tmp_path / "runs/mail/seed-0/train/student/model.safetensors").exists()
    manifest = json.loads((tmp_path / "runs/mail/curated/manifest.json").read_text(encoding="utf-8"))
    assert manifest["status"] == "complete"
    assert [row["step"] for row in manifest["facts"]["funnel"]] == ["correct", "leak", "dedup"]


# --- cli.md: the help texts ---


def help_page() -> str:
    """Every `--help` text, as `docs/cli.md` holds them."""
    from lmdistill.cli.main import command_files

    def told(*arguments: str) -> str:
        environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}
        command = [sys.executable, "-m", "lmdistill", *arguments, "--help"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.rstrip()

    parts = [
        "# The command line\n",
        "Made by `make docs` from the `--help` texts; a test compares them.\n",
        "Exit codes: 0 done, 2 the user's to mend, 3 the teacher gave up, 4 the budget is spent, 130 interrupted.\n",
        f"```text\n{told()}\n```\n",
    ]
    for name in command_files():
        text = told(name)
        parts.append(f"## lmdistill {name}\n\n```text\n{text}\n```\n")
        inner = text.partition("\nCommands:\n")[2]
        for line in inner.splitlines():
            command = re.match(r"  ([a-z][\w-]*)\s", line + " ")
            if command:
                parts.append(f"### lmdistill {name} {command[1]}\n\n```text\n{told(name, command[1])}\n```\n")
    return "\n".join(parts)


@pytest.mark.slow
def test_the_help_texts_in_the_docs_are_today_s() -> None:
    assert (DOCS / "cli.md").read_text(encoding="utf-8") == help_page(), "run `make docs`"


# --- the README ---


def tree() -> str:
    """The file tree with a line for each source file: the first line of its docstring."""
    lines = ["src/lmdistill/"]
    folder = SOURCE
    for path in sorted(SOURCE.rglob("*.py"), key=lambda path: (path.parent != SOURCE, path.parent, path)):
        if path.parent != folder:
            folder = path.parent
            about = first_line(folder / "__init__.py")
            lines.append(f"  {f'{folder.relative_to(SOURCE)}/':<28}{about}")
        if path.name == "__init__.py":
            continue
        indent = 2 if folder == SOURCE else 4
        about = command_line(path) if path.parent.name == "cli" else first_line(path)
        lines.append(f"{' ' * indent}{path.name:<{30 - indent}}{about}")
    return "\n".join(lines)


def first_line(path: Path) -> str:
    """The first line of a file's docstring."""
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return doc.partition("\n")[0]


def command_line(path: Path) -> str:
    """What a command does: the first line of its function, as `lmdistill --help` shows it, else of its file."""
    from lmdistill.cli.main import _first_line

    return _first_line(path)


TREE = re.compile(r"(<!-- tree -->\n```text\n).*?(```\n<!-- /tree -->)", re.DOTALL)


def with_tree(readme: str) -> str:
    """The README with today's file tree."""
    made = tree() + "\n"
    text, count = TREE.subn(lambda match: match[1] + made + match[2], readme)
    assert count == 1, "README.md must hold one <!-- tree --> ... <!-- /tree -->"
    return text


def test_every_source_file_has_one_line_in_the_readme() -> None:
    for path in SOURCE.rglob("*.py"):
        line = first_line(path)
        assert line, f"{path}: its docstring must say what it is"
        assert len(line) <= 120, f"{path}: {line}"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme == with_tree(readme), "run `make docs`"


def test_links_in_the_docs_lead_somewhere() -> None:
    for page in (ROOT / "README.md", *DOCS.rglob("*.md")):
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if not re.match(r"[a-z]+:", target):
                assert (page.parent / target).exists(), f"{page.name}: no {target}"


def test_the_two_commands_of_the_readme_are_targets() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", readme, re.MULTILINE))
    assert {"quickstart", "test"} <= named <= targets
    assert "make test" in (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert os.access(ROOT / ".ci/run", os.X_OK)


def write() -> None:
    """Write the generated parts."""
    (DOCS / "cli.md").write_text(help_page(), encoding="utf-8")
    readme = ROOT / "README.md"
    readme.write_text(with_tree(readme.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    write()

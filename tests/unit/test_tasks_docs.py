"""The description file of docs/tasks.md works as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

from lmdistill.tasks.table import Table

DOCS = Path(__file__).parents[2] / "docs" / "tasks.md"


def test_the_example_of_the_docs(tmp_path: Path) -> None:
    block = re.search(r"```yaml\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    (tmp_path / "mail.yaml").write_text(block[1], encoding="utf-8")
    lines = [f'm{i},Offer {i},"Cheap, now",{"spam" if i % 2 else "ham"}' for i in range(30)]
    (tmp_path / "mail.csv").write_text("\n".join(["message,subject,body,kind", *lines]), encoding="utf-8")
    task = Table(file=tmp_path / "mail.yaml")
    every = [example for split in ("train", "valid", "test") for example in task.examples(split)]
    assert len(every) == 30
    assert every[0].input.endswith("\nCheap, now")
    assert task.parse(every[0], "It sells. So the answer is spam.").answer == "spam"
    assert task.exemplars[0].answer == "spam"

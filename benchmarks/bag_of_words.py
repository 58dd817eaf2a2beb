"""What a student without pretraining must beat: logistic regression on bags of words, on the same split.

    python benchmarks/bag_of_words.py --task esnli --path "$LMDISTILL_DATA/dss_esnli" \
        --answers "$LMDISTILL_DATA/dss_esnli/train.jsonl.gz"

Trains once on gold labels and, with `--answers`, once on the labels read from the teacher's recorded text; prints the
test accuracy with its 95 % interval and that of always answering the commonest label. Needs scikit-learn (it comes with
the extra `search`).
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from lmdistill.annotate import annotate
from lmdistill.config import rebuild
from lmdistill.intervals import wilson
from lmdistill.tasks import Task
from lmdistill.types import Example


def columns(examples: Sequence[Example]) -> list[list[str]]:
    """The two halves of each input (the same text twice where it has one), and the words of the second half marked by
    whether the first has them too."""
    halves = [(example.input.split("</s>")[0], example.input.split("</s>")[-1]) for example in examples]
    marked = []
    for first, last in halves:
        known, own = (re.findall(r"\w+", text.lower()) for text in (first, last))
        marked.append(" ".join(("both_" if word in set(known) else "new_") + word for word in own))
    return [[first for first, _ in halves], [last for _, last in halves], marked]


def accuracy(
    name: str, task: Task, labels: Mapping[str, str], train: Sequence[Example], test: Sequence[Example]
) -> None:
    """Train on the examples that have a label, and print the accuracy on the gold labels of `test`."""
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    counters = [CountVectorizer(binary=True, min_df=2, ngram_range=(1, most)) for most in (1, 2, 1)]
    known = [example for example in train if labels.get(example.id)]
    seen = hstack([counter.fit_transform(own) for counter, own in zip(counters, columns(known), strict=True)])
    model = LogisticRegression(C=0.1, max_iter=300).fit(seen, [labels[example.id] for example in known])
    asked = hstack([counter.transform(own) for counter, own in zip(counters, columns(test), strict=True)])
    right = sum(task.is_correct(example, answer) for example, answer in zip(test, model.predict(asked), strict=True))
    low, high = wilson(right, len(test))
    print(f"{name}: {right / len(test):.3f} ({low:.3f} to {high:.3f}), {len(known):,} training examples")


def main() -> None:
    """Parse the options and print the floors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="esnli")
    parser.add_argument("--path", type=Path, required=True)
    parser.add_argument("--answers", type=Path)
    options = parser.parse_args()
    task: Task = rebuild("tasks", {"name": options.task, "path": str(options.path)})
    train, test = list(task.examples("train")), list(task.examples("test"))
    commonest, count = Counter(example.label for example in test).most_common(1)[0]
    print(f"always {commonest!r}: {count / len(test):.3f} of {len(test):,} test examples")
    accuracy("gold labels", task, {example.id: example.label or "" for example in train}, train, test)
    if options.answers:
        teacher = rebuild("teachers", {"name": "replay", "path": str(options.answers)})
        with tempfile.TemporaryDirectory() as folder:
            asked = annotate(task, teacher, train, folder=Path(folder) / "annotations")
            labels = {one.id: one.answer or "" for one in asked}
        accuracy("teacher's labels", task, labels, train, test)


if __name__ == "__main__":
    main()

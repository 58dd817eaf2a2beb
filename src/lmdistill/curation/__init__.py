"""A curation step: which of an input's rationales stay in use.

A step is a frozen dataclass of settings. It sees a whole annotation and moves what it drops to `rejected`, each with
its reason; it never deletes. Steps compose in any order (`lmdistill.curate`). A step that must know the whole corpus
(quantiles, duplicates across inputs) looks at it in `survey`.

To add one: a file `curation/NAME.py` with a frozen dataclass `Name(Curation)` that has `apply`; the contract test
(`tests/contract/test_curation.py`) finds it.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Iterable

from lmdistill.tasks import Task
from lmdistill.types import Annotation


class Curation(ABC):
    """The contract; see the module's docstring."""

    def survey(self, annotations: Iterable[Annotation], task: Task) -> Curation:
        """The step as it will be applied, after one look at everything that reaches it; most steps need none.

        Args:
            annotations: read lazily and once, so that memory stays flat.

        Raises:
            DataError: nothing that reaches the step has what it needs.
        """
        return self

    @abstractmethod
    def apply(self, annotation: Annotation, task: Task, rng: random.Random) -> Annotation:
        """The annotation with fewer rationales in use (or with scores added); the example is never changed.

        Reasons are short and equal for equal causes: they are what the manifest counts.
        """

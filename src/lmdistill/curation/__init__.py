"""A curation step: which of an input's rationales stay in use.

A step is a frozen dataclass of settings. It sees a whole annotation and moves what it drops to `rejected`, each with
its reason; it never deletes. Steps compose in any order (`lmdistill.curate`). To add one: a file `curation/NAME.py`
with a frozen dataclass `Name(Curation)`; the contract test finds it.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod

from lmdistill.tasks import Task
from lmdistill.types import Annotation


class Curation(ABC):
    """The contract; see the module's docstring."""

    @abstractmethod
    def apply(self, annotation: Annotation, task: Task, rng: random.Random) -> Annotation:
        """The annotation with fewer rationales in use (or with scores added); the example is never changed."""

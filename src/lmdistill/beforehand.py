"""What a comparison needs before its cells: a teacher that is trained, students that are cut out of it.

    first:
      teacher: {recipe: finetune, student: {preset: medium}}    # takes the comparison's other settings too
      pruned: {prune: first:teacher, decoder: 2}
    settings:
      teacher: {name: transformers, model: first:teacher}       # the folder of that student

Each is done once, in the order of the file, before any cell. A run is an arm of the report like any other method.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmdistill import config, registry
from lmdistill.codec import digest
from lmdistill.errors import ConfigError, LmdistillError, StoreError, did_you_mean
from lmdistill.pruning import Pruning, prune
from lmdistill.store import read_manifest

MARK = "first:"


@dataclass(frozen=True)
class Step:
    """A recipe's run (`recipe` names it), or a pruned model (`recipe` is empty, `model` loses layers). `needs` names
    the steps that it builds on."""

    name: str
    recipe: str
    settings: Mapping[str, Any]
    folder: Path
    seed: int | None = None
    model: str = ""
    needs: frozenset[str] = frozenset()

    @property
    def student(self) -> Path:
        """Where the student lies when the step is done."""
        return self.folder / "student" if self.recipe else self.folder

    def prune(self) -> None:
        """Cut the model. A finished folder is left as it is: its name says which model it was made from."""
        made = read_manifest(self.folder)
        if made is not None and made.stage == "prune" and made.status == "complete":
            return
        prune(self.model, self.folder, config.build(Pruning, self.settings))

    def link(self, student: Path) -> None:
        """Let `student` lead to what the run trained.

        Raises:
            StoreError: the link cannot be made.
        """
        try:
            self.student.unlink(missing_ok=True)
            self.student.symlink_to(os.path.relpath(student, self.folder), target_is_directory=True)
        except OSError as error:
            raise StoreError(f"cannot link {self.student} ({error.strerror or error})") from error


def steps_of(
    first: Mapping[str, Any], common: Mapping[str, Any], seed: int, out: Path, overlaid: Callable[..., dict[str, Any]]
) -> list[Step]:
    """The steps in order; `common` are the settings that every recipe takes which has them.

    Raises:
        ConfigError: no step (neither `recipe` nor `prune`), unknown settings, a step that names a later one.
    """
    steps: list[Step] = []
    problems: list[str] = []
    for name, own in first.items():
        given = dict(own) if isinstance(own, Mapping) else {}
        if ("recipe" in given) == ("prune" in given):
            problems.append(f"first.{name}: a mapping with either 'recipe' or 'prune' was expected, got {own!r}")
            continue
        try:
            step = _step(str(name), given, common, seed, out, overlaid, steps)
            if step.recipe:
                config.build(registry.load("recipes", step.recipe), step.settings)
            else:
                config.build(Pruning, step.settings)
        except ConfigError as error:
            problems += [f"first.{name}: {problem}" for problem in error.problems]
            continue
        except LmdistillError as error:
            problems.append(f"first.{name}: {error}")
            continue
        steps.append(step)
    if problems:
        raise ConfigError(problems)
    return steps


def _step(
    name: str,
    given: dict[str, Any],
    common: Mapping[str, Any],
    seed: int,
    out: Path,
    overlaid: Callable[..., dict[str, Any]],
    before: list[Step],
) -> Step:
    slug = re.sub(r"[^a-z0-9.]+", "-", name.casefold()).strip("-")[:60]
    if "prune" in given:
        model = given.pop("prune")
        folder = out / "first" / f"{slug}-{digest([keyed(model, before), given])[:8]}"
        return Step(name, "", given, folder, model=str(resolved(model, before)), needs=steps_in(model))
    recipe = given.pop("recipe")
    fields = {field.name for field in dataclasses.fields(registry.load("recipes", recipe)) if field.init}
    own_seed = seed if "seeds" in fields else None
    # What stands for all cells may name this very step (the teacher of the cells); its own run has no use for it.
    usual = {key: value for key, value in common.items() if key in fields and not steps_in(value)}
    settings = overlaid(usual, given) | ({} if own_seed is None else {"seeds": [own_seed]})
    folder = out / "first" / f"{slug}-{digest([recipe, keyed(settings, before)])[:8]}"
    return Step(name, recipe, resolved(settings, before), folder, own_seed, needs=steps_in(settings))


def resolved(value: Any, steps: list[Step]) -> Any:
    """`first:NAME` replaced by the folder of that step's student, wherever it stands.

    Raises:
        ConfigError: there is no such step (before).
    """
    return _replaced(value, {step.name: str(step.student.absolute()) for step in steps})


def keyed(value: Any, steps: list[Step]) -> Any:
    """`first:NAME` replaced by what tells steps apart wherever the comparison lies: the folder's own name."""
    return _replaced(value, {step.name: MARK + step.folder.name for step in steps})


def _replaced(value: Any, known: Mapping[str, str]) -> Any:
    if isinstance(value, Mapping):
        return {key: _replaced(one, known) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_replaced(one, known) for one in value]
    if not steps_in(value):
        return value
    name = value.removeprefix(MARK).strip()
    if name not in known:
        raise ConfigError(f"{value!r} names none of the steps before it under 'first'{did_you_mean(name, known)}")
    return known[name]


def steps_in(value: Any) -> frozenset[str]:
    """The names of the steps that a value names, itself or in what it holds."""
    if isinstance(value, Mapping | list | tuple):
        every = value.values() if isinstance(value, Mapping) else value
        return frozenset().union(*(steps_in(one) for one in every))
    named = isinstance(value, str) and value.startswith(MARK)
    return frozenset({value.removeprefix(MARK).strip()}) if named else frozenset()

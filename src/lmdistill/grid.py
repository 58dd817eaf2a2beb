"""The cells of a comparison: which recipe runs with which settings, seed and folder."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmdistill import config, registry
from lmdistill.beforehand import Step, keyed, resolved, steps_in, steps_of
from lmdistill.codec import digest
from lmdistill.costing import Costs
from lmdistill.errors import ConfigError, LmdistillError, UnknownName, did_you_mean
from lmdistill.pricing import Budget
from lmdistill.runfile import INSTEAD_OF

OWN = ("recipe", "seeds", "cache", "shared")
"""Settings that the comparison gives to its cells itself."""
ASKING = ("teacher", "prompting", "sampling", "budget", "curation")
"""Settings that change nothing where a recipe does not read the teacher's answers."""


@dataclass(frozen=True)
class Comparison:
    """A grid of runs.

    `recipes` is a list of names, or a mapping of a method's title to its settings (with `recipe` where the title is
    not the recipe's name). `settings` are given to every recipe that has them. `students` is a list of students or a
    mapping of titles to them; `vary` a mapping of a dotted setting to its values. A recipe that lacks an axis (one
    that trains nothing has no student and no seed) is run once for it. `baseline` names the method that the others are
    measured against (default: the first); `metric` the metric (default: the first of the reports). `first` names what
    is made before the cells (see `beforehand`); `ceiling` the method whose distance to the baseline others may close.
    `budget` caps what all cells together ask of their teachers (`settings.budget` is that of each cell).
    """

    recipes: Any
    settings: Mapping[str, Any] = field(default_factory=dict)
    students: Any = None
    fractions: tuple[float, ...] = ()
    seeds: tuple[int, ...] = (0,)
    vary: Mapping[str, Any] = field(default_factory=dict)
    first: Mapping[str, Any] = field(default_factory=dict)
    baseline: str | None = None
    ceiling: str | None = None
    metric: str | None = None
    title: str = ""
    question: str = ""
    cost: Costs = field(default_factory=Costs)
    budget: Budget = field(default_factory=Budget)

    def __post_init__(self) -> None:
        problems = []
        if not methods_of(self):
            problems.append("recipes: name at least one (see `lmdistill list recipes`)")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            problems.append(f"seeds: {list(self.seeds)} must name at least one seed, and each once")
        methods = [*methods_of(self), *self.first]
        for place, name in (("baseline", self.baseline), ("ceiling", self.ceiling)):
            if name is not None and name not in methods:
                problems.append(f"{place}: {name!r} is none of the recipes{did_you_mean(name, methods)}")
        problems += [f"first.{name}: a recipe has that title" for name in self.first if name in methods_of(self)]
        if self.students:
            try:
                named_students(self.students)
            except ConfigError as error:
                problems += error.problems
        for title, own in methods_of(self).items():
            if "seeds" in own:
                problems.append(f"recipes.{title}.seeds: the comparison's own seeds would take their place")
            if "fraction" in own and self.fractions:
                problems.append(f"recipes.{title}.fraction: the comparison's own fractions would take its place")
            problems += [f"recipes.{title}.{path}: {axis} would take its place" for path, axis in self._replaced(own)]
        problems += [
            f"first.{name}.seeds: a step is made with the first of the comparison's own seeds"
            for name, step in self.first.items()
            if isinstance(step, Mapping) and "seeds" in step
        ]
        for axis, given in (("student", self.students), ("fraction", self.fractions)):
            if given and axis in self.vary:
                problems.append(f"vary.{axis}: {axis}s stands here too; one of them decides")
        ends = {axis.rpartition(".")[2]: axis for axis in self.vary}
        for first, second in INSTEAD_OF.items():
            if first in ends and second in ends:
                problems.append(f"vary: {ends[first]} and {ends[second]}: one of them decides; vary one")
        for axis, values in self.vary.items():
            if not listed(values) or not values:
                problems.append(f"vary.{axis}: a list of one value or more was expected, got {values!r}")
        if problems:
            raise ConfigError(problems)

    def _replaced(self, own: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """What a method sets and an axis too: the path, and the axis that would silently decide."""
        try:
            students = [one for one in named_students(self.students or {}).values() if isinstance(one, Mapping)]
        except ConfigError:  # told by itself
            students = []
        axes = {f"student.{path}": "students" for one in students for path in _leaves(one)}
        axes |= {axis: f"vary.{axis}" for axis in self.vary}
        yield from ((path, axes[path]) for path in _leaves(own) if path in axes)


@dataclass(frozen=True)
class Cell:
    """One run of the grid. `about` says what sets it apart beside its method and its seed; `needs` names the
    steps under `first` that it is given."""

    method: str
    recipe: str
    about: Mapping[str, Any]
    seed: int | None
    settings: Mapping[str, Any]
    folder: Path
    needs: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """A short title, unique in the comparison."""
        parts = [self.method, *(f"{key}={brief(value)}" for key, value in self.about.items())]
        return " ".join(parts) + ("" if self.seed is None else f" seed {self.seed}")


def methods_of(comparison: Comparison) -> dict[str, dict[str, Any]]:
    """Each method's title and its settings, `recipe` among them.

    Raises:
        ConfigError: recipes are neither names nor a mapping of titles to settings.
    """
    given = comparison.recipes
    if isinstance(given, str):
        given = [given]
    if listed(given):
        given = {str(name): {} for name in given}
    if not isinstance(given, Mapping) or not all(isinstance(own or {}, Mapping) for own in given.values()):
        raise ConfigError(f"recipes: a list of names, or a mapping of titles to settings, was expected, got {given!r}")
    return {str(title): {"recipe": str(title), **(own or {})} for title, own in given.items()}


def cells_of(comparison: Comparison, out: Path) -> list[Cell]:
    """Every cell of the grid, each once.

    Raises:
        ConfigError: unknown recipes, settings that no recipe has, and everything that a cell's recipe refuses.
    """
    problems: dict[str, None] = {}
    fields: dict[str, set[str]] = {}
    for title, own in methods_of(comparison).items():
        try:
            cls = registry.load("recipes", own["recipe"])
        except UnknownName as error:
            problems[f"recipes: {error}"] = None
            continue
        fields[title] = {one.name for one in dataclasses.fields(cls) if one.init}
    known = sorted(set().union(*fields.values()))
    asked = [("settings", key) for key in comparison.settings] + [("vary", key) for key in comparison.vary]
    for place, key in asked:
        head = key.partition(".")[0]
        if fields and head not in known:
            problems[f"{place}.{key}: no recipe of this comparison has it{did_you_mean(head, known)}"] = None
        if head in OWN and head != "cache":
            problems[f"{place}.{key}: the comparison sets it itself; use its own key 'recipes' or 'seeds'"] = None
    try:
        steps = [] if problems else first_steps(comparison, out)
    except ConfigError as error:
        problems.update(dict.fromkeys(error.problems))
    cells: dict[Path, Cell] = {}
    measured: set[str] = set()
    for title, names in fields.items() if not problems else ():
        try:
            made = list(_cells_of(comparison, title, names, out, steps))
        except ConfigError as error:
            problems.update((f"recipes.{title}: {problem}", None) for problem in error.problems)
            continue
        for cell in made:
            if cell.folder not in cells:
                cells[cell.folder] = cell
                built, refused = _built(cell)
                problems.update(dict.fromkeys(refused))
                measured |= _measured(built)
    if not problems and comparison.metric and measured and comparison.metric not in measured:
        near = did_you_mean(comparison.metric, measured)
        told = f"metric: {comparison.metric!r} is measured by no cell{near} Known: {', '.join(sorted(measured))}"
        problems[told] = None
    if problems:
        raise ConfigError(problems)
    return list(cells.values())


def check_rows(cells: Sequence[Cell]) -> None:
    """Look at the first rows of every task of these cells.

    Raises:
        ConfigError: what they tell against it; once, however many cells have it.
    """
    tasks = {repr(task): task for cell in cells for task in _tasks_of(_built(cell)[0]).values()}
    problems = []
    for task in tasks.values():
        try:
            task.check()
        except LmdistillError as error:
            problems.append(f"task: {error}")
    if problems:
        raise ConfigError(problems)


def first_steps(comparison: Comparison, out: Path) -> list[Step]:
    """What is made before the cells, in order."""
    return steps_of(comparison.first, comparison.settings, comparison.seeds[0], out, overlaid)


def _cells_of(comparison: Comparison, title: str, names: set[str], out: Path, steps: list[Step]) -> Iterator[Cell]:
    """The cells of one method; `names` are the settings that its recipe has."""
    own = dict(methods_of(comparison)[title])
    recipe = own.pop("recipe")
    base = overlaid({key: value for key, value in comparison.settings.items() if key in names}, own)
    axes: list[list[tuple[dict[str, Any], dict[str, Any]]]] = []  # (what it is called, what it sets)
    if "student" in names and comparison.students:
        students = named_students(comparison.students)
        axes.append([({"student": name}, {"student": student}) for name, student in students.items()])
    if "fraction" in names and comparison.fractions:
        axes.append([({"fraction": share}, {"fraction": share}) for share in comparison.fractions])
    deaf = not getattr(registry.load("recipes", recipe), "asks_teacher", True) and not base.get("measure_teacher")
    for key, values in comparison.vary.items():
        if key.partition(".")[0] in names and not (deaf and key.partition(".")[0] in ASKING):
            axes.append([({key: value}, _nested(key, value)) for value in values])
    if "seeds" in names:
        axes.append([({"seed": seed}, {"seeds": [seed]}) for seed in comparison.seeds])
    for choice in itertools.product(*axes):
        about: dict[str, Any] = {}
        settings = base
        for called, sets in choice:
            about |= called
            settings = overlaid(settings, sets)
        seed = about.pop("seed", None)
        identity = {key: value for key, value in settings.items() if key not in ("cache", "shared", "seeds")}
        slug = re.sub(r"[^a-z0-9.]+", "-", " ".join([title, *map(brief, about.values())]).casefold()).strip("-")
        folder = out / "cells" / f"{slug[:60]}-{digest([recipe, title, keyed(identity, steps)])[:8]}"
        needs, settings = steps_in(settings), resolved(settings, steps)
        where = {name: str(path) for name, path in _shared(out.absolute(), settings).items() if name in names}
        folder = folder if seed is None else folder / f"seed-{seed}"
        yield Cell(title, recipe, about, seed, where | settings, folder, needs)


def _shared(out: Path, settings: Mapping[str, Any]) -> dict[str, Path]:
    """What cells share. Answers are shared by cells with the same teacher, setting for setting: a teacher that is a
    program may answer the same request otherwise under other settings, which no request shows."""
    return {"cache": out / f"answers-{digest(settings.get('teacher'))[:8]}.sqlite", "shared": out / "shared"}


def _built(cell: Cell) -> tuple[Any, list[str]]:
    """A cell's recipe, or None and what it says against its settings."""
    try:
        return config.build(registry.load("recipes", cell.recipe), cell.settings), []
    except ConfigError as error:
        return None, [f"recipes.{cell.method}: {problem}" for problem in error.problems]
    except LmdistillError as error:
        return None, [f"recipes.{cell.method}: {error}"]


def _measured(recipe: Any) -> set[str]:
    """The names of the values that a recipe's report will hold, as far as its task's metric tells them."""
    tasks = _tasks_of(recipe)
    if not tasks:
        return set()
    further = [registry.name_of(one) for one in getattr(recipe, "metrics", ())]
    found: set[str] = set()
    for at, one in tasks.items():
        for metric in (one.metric, *getattr(one, "also", ()), *further):
            found |= {f"{at}{name}" for name in _values(metric)}
    grounded = getattr(getattr(recipe, "grounding", None), "passages", 0)
    return found | set(_values("hits_at_k") if grounded else ())


def _tasks_of(recipe: Any) -> dict[str, Any]:
    """What a recipe is tested on: its task under '', further ones under what their metrics' names begin with."""
    task = getattr(recipe, "task", None)
    if task is None:
        return {}
    return {"": task} | {f"{registry.name_of(one)}.": one for one in getattr(recipe, "also_test", ())}


def _values(metric: str) -> tuple[str, ...]:
    try:
        return registry.load("metrics", metric).values or (metric,)
    except LmdistillError:  # told when it is measured: the package that it needs is missing
        return (metric,)


def named_students(students: Any) -> dict[str, Any]:
    """Students by title: of a list, the title is what sets each apart, of a path as much of its end as that takes.

    >>> named_students(["causal", {"preset": "mini"}, {"name": "seq2seq", "model": "a/b"}])
    {'causal': 'causal', 'mini': {'preset': 'mini'}, 'seq2seq b': {'name': 'seq2seq', 'model': 'a/b'}}
    >>> list(named_students([{"model": "a/x/student"}, {"model": "b/x/student"}]))
    ['a/x/student', 'b/x/student']

    Raises:
        ConfigError: one student stands there twice.
    """
    if isinstance(students, Mapping):
        return dict(students)
    every = list(students) if listed(students) else [students]
    said = [list(map(str, one.values())) if isinstance(one, Mapping) else [str(one)] for one in every]
    for kept in range(1, 2 + max(part.count("/") for parts in said for part in parts)):
        titles = [" ".join("/".join(part.split("/")[-kept:]) for part in parts) for parts in said]
        if len(set(titles)) == len(titles):
            return dict(zip(titles, every, strict=True))
    twice = next(one for place, one in enumerate(every) if titles.index(titles[place]) < place)
    raise ConfigError(f"students: {brief(twice)} stands there twice; name each once")


def overlaid(settings: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Settings laid over others, level by level; another component takes nothing from the one it replaces, and steps
    displace epochs.

    >>> overlaid({"student": "seq2seq", "train": {"steps": 9}}, {"student": {"preset": "mini"}, "train": {"clip": 1}})
    {'student': {'name': 'seq2seq', 'preset': 'mini'}, 'train': {'steps': 9, 'clip': 1}}
    """
    displaced = {INSTEAD_OF[key] for key in over if key in INSTEAD_OF}
    out = {key: value for key, value in settings.items() if key not in displaced}
    for key, value in over.items():
        old = out.get(key)
        if isinstance(old, str) and isinstance(value, Mapping) and "name" not in value:
            old = {"name": old}
        if (
            isinstance(old, Mapping)
            and isinstance(value, Mapping)
            and value.get("name", old.get("name")) == old.get("name")
        ):
            value = overlaid(old, value)
        out[key] = value
    return out


def _nested(path: str, value: Any) -> dict[str, Any]:
    """`{"a": {"b": value}}` for the path `a.b`."""
    for key in reversed(path.split(".")):
        value = {key: value}
    return dict(value)


def _leaves(settings: Mapping[str, Any]) -> Iterator[str]:
    """The dotted paths of settings that are no mappings.

    >>> list(_leaves({"recipe": "dss", "student": {"preset": "mini"}}))
    ['recipe', 'student.preset']
    """
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from (f"{key}.{path}" for path in _leaves(value))
        else:
            yield str(key)


def listed(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def brief(value: Any) -> str:
    """A setting's value in few words, by which it can be told from others.

    >>> brief({"name": "scripted", "error_rate": 0.5}), brief({"preset": "mini"}), brief(0.25)
    ('scripted error_rate 0.5', 'preset mini', '0.25')
    """
    if isinstance(value, Mapping):
        rest = [f"{key} {brief(one)}" for key, one in value.items() if key != "name"]
        return " ".join([*([str(value["name"])] if "name" in value else []), *rest])
    return f"{value:g}" if isinstance(value, float) else str(value)

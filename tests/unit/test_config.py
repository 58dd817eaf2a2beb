from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmdistill import config, runfile
from lmdistill.config import component
from lmdistill.curation import Curation
from lmdistill.curation.correct import Correct
from lmdistill.curation.length import Length
from lmdistill.curation.random_k import RandomK
from lmdistill.errors import ConfigError
from lmdistill.grid import overlaid
from lmdistill.recipes.rd import Rd


@dataclass(frozen=True)
class Inner:
    steps: int = 100
    rate: float = 1e-3
    schedule: Literal["linear", "constant"] = "linear"


@dataclass(frozen=True)
class Deep:
    inner: Inner = field(default_factory=Inner)
    size: int = 1


@dataclass(frozen=True)
class Outer:
    task: str
    main: Curation = component("curation", "correct")
    several: tuple[Curation, ...] = component("curation", ())
    either: Curation | tuple[Curation, ...] | None = component("curation", None)
    train: Inner = field(default_factory=Inner)
    other: Inner | None = None
    path: Path | None = None
    names: tuple[str, ...] = ()
    pair: tuple[int, float] = (1, 2.0)
    limits: Mapping[str, int] = field(default_factory=dict)
    tuned: Inner = field(default_factory=lambda: Inner(steps=7, rate=0.5))
    deep: Deep | None = field(default_factory=lambda: Deep(Inner(steps=3, rate=0.25), 9))
    flag: bool = False
    anything: Any = None
    bound: int | str = 3

    def __post_init__(self) -> None:
        if self.task == "bad":
            raise ConfigError(["task: is bad", "task: is very bad"])


def problems(settings: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        config.build(Outer, settings)
    return caught.value.problems


# --- building ---


def test_what_is_not_said_stays_as_the_recipe_prefers_it() -> None:
    built = config.build(Outer, {"task": "t", "tuned": {"steps": 5}, "deep": {"inner": {"steps": 4}}})
    assert built.tuned == Inner(steps=5, rate=0.5)
    assert built.deep == Deep(Inner(steps=4, rate=0.25), 9)
    assert config.build(Outer, {"task": "t", "other": {"steps": 5}}).other == Inner(steps=5), "of None, nothing stays"
    assert config.build(Outer, {"task": "t", "deep": None}).deep is None


def test_defaults_and_nesting() -> None:
    built = config.build(Outer, {"task": "t", "train": {"steps": 5}})
    assert built == Outer("t", train=Inner(steps=5))
    assert built.main == Correct()


def test_components_by_name_or_with_settings_one_or_several() -> None:
    built = config.build(
        Outer,
        {
            "task": "t",
            "main": {"name": "length", "high": 9},
            "several": ["correct", {"name": "random_k", "k": 2}],
            "either": "correct",
        },
    )
    assert built.main == Length(high=9)
    assert built.several == (Correct(), RandomK(2))
    assert built.either == Correct()
    assert config.build(Outer, {"task": "t", "several": "correct"}).several == (Correct(),)
    assert config.build(Outer, {"task": "t", "either": ["correct"]}).either == (Correct(),)
    assert config.build(Outer, {"task": "t", "either": None}).either is None


def test_all_problems_are_reported_at_once_each_with_its_place() -> None:
    found = problems(
        {
            "tsk": "t",
            "train": {"stpes": 5, "rate": "fast", "schedule": "liner", "steps": 1.5},
            "main": "corect",
            "several": [{"k": 3}, "length", {"name": "random_k", "k": 0}],
            "pair": [1],
            "flag": "yes",
            "limits": {"a": "b"},
        }
    )
    assert found == [
        "tsk: unknown setting; did you mean 'task'?",
        "train.stpes: unknown setting; did you mean 'steps'?",
        "train.rate: expected float, got 'fast'",
        "train.schedule: 'liner' is not one of linear, constant; did you mean 'linear'?",
        "train.steps: expected int, got 1.5",
        "main: unknown curation 'corect'; did you mean 'correct'? Known: "
        + ", ".join(config.registry.names("curation")),
        "several[0]: a name, or a mapping with 'name', was expected, got {'k': 3}",
        "several[2].k: at least 1 was expected, got 0",
        "pair: expected tuple[int, float], got [1]",
        "flag: expected bool, got 'yes'",
        "limits.a: expected int, got 'b'",
        "task: is required",
    ]


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"task": "t", "main": None}, "main: a name, or a mapping with 'name', was expected, got None"),
        ({"task": "t", "main": ["correct"]}, "main: a name, or a mapping with 'name', was expected, got ['correct']"),
        ({"task": "t", "train": 5}, "train: a mapping was expected, got 5"),
        ({"task": "t", "other": {"step": 5}}, "other.step: unknown setting; did you mean 'steps'?"),
        ({"task": "t", "names": "a"}, "names: expected tuple[str, ...], got 'a'"),
        ({"task": "t", "train": {"steps": True}}, "train.steps: expected int, got True"),
        ({"task": 1.10}, "task: expected str, got 1.1; put it in quotes"),
        ({"task": ["t"]}, "task: expected str, got ['t']"),
        ({"task": "t", "bound": [1]}, "bound: expected int | str, got [1]"),
        ({"task": "t", "several": {"name": "correct", "nme": 1}}, "several.nme: unknown setting"),
    ],
)
def test_one_problem(settings: dict[str, Any], problem: str) -> None:
    (found,) = problems(settings)
    assert found.startswith(problem)


def test_what_a_dataclass_itself_refuses_keeps_its_lines() -> None:
    assert problems({"task": "bad"}) == ["task: is bad", "task: is very bad"]


def test_values_are_converted_where_nothing_is_lost() -> None:
    built = config.build(
        Outer,
        {
            "task": 12,
            "train": {"steps": "7", "rate": "5e-5"},
            "path": "~/x",
            "names": ["a", 1, True],
            "pair": [2.0, 3],
            "limits": {"a": 1},
            "anything": {"b": [1]},
            "bound": "x",
        },
    )
    assert (built.task, built.train.steps, built.train.rate) == ("12", 7, 5e-5)
    assert built.path == Path.home() / "x"
    assert built.names == ("a", "1", "true")
    assert built.pair == (2, 3.0)
    assert isinstance(built.pair[0], int)
    assert (built.limits, built.anything, built.bound) == ({"a": 1}, {"b": [1]}, "x")


# --- writing back ---


def test_settings_are_written_back_whole_and_rebuilt() -> None:
    built = Outer("t", several=(Correct(), RandomK(2)), other=Inner(rate=0.5), path=Path("x"), names=("a",))
    written = config.settings_of(built)
    assert written["several"] == [{"name": "correct", "unlabelled": "keep"}, {"name": "random_k", "k": 2}]
    assert written["train"] == {"steps": 100, "rate": 1e-3, "schedule": "linear"}
    assert config.build(Outer, written) == built
    assert config.rebuild("curation", config.settings_of(RandomK(4))) == RandomK(4)
    with pytest.raises(ConfigError, match="unknown curation 'nosuch'"):
        config.rebuild("curation", {"name": "nosuch"})


def test_only_a_component_carries_a_name() -> None:
    """Also where one may stand alone, and not on settings that merely live in a kind's folder."""

    @dataclass(frozen=True)
    class Part:
        k: int = 1

    Part.__module__ = "lmdistill.curation.random_k"

    @dataclass(frozen=True)
    class Whole:
        draw: RandomK = RandomK(3)
        part: Part = Part()

    hints = {"draw": RandomK, "part": Part}
    Whole.__annotations__.update(hints)
    written = config.settings_of(Whole())
    assert written == {"draw": {"name": "random_k", "k": 3}, "part": {"k": 1}}
    assert config.build(Whole, written) == Whole()
    with pytest.raises(ConfigError, match=r"draw\.name: unknown setting"):
        config.build(Whole, {"draw": {"name": "length"}})


@given(st.builds(Inner, st.integers(), st.floats(allow_nan=False), st.sampled_from(["linear", "constant"])))
def test_round_trip(inner: Inner) -> None:
    assert config.build(Inner, config.settings_of(inner)) == inner


# --- run files ---


def test_yaml_as_people_mean_it() -> None:
    text = "choices: [yes, no, on, off, y, n]\nrate: 5e-5\nzip: 0123\nday: 2026-11-20\nat: 1:30\nnone: null\nempty:\n"
    assert runfile.parse(text) == {
        "choices": ["yes", "no", "on", "off", "y", "n"],
        "rate": 5e-5,
        "zip": "0123",
        "day": "2026-11-20",
        "at": "1:30",
        "none": None,
        "empty": None,
    }
    numbers = runfile.parse("[1, -2, +3, 1.5, .5, 1., 1e3, -1.5E-3, .inf, -.inf, true, False, 'true', 1_000]")
    assert numbers == [
        1,
        -2,
        3,
        1.5,
        0.5,
        1.0,
        1000.0,
        -0.0015,
        float("inf"),
        float("-inf"),
        True,
        False,
        "true",
        "1_000",
    ]
    assert [type(one) for one in numbers[:2]] == [int, int]


def test_anchors_and_merges_work() -> None:
    assert runfile.parse("a: &x {k: 1, l: 2}\nb: {<<: *x, k: 3}") == {"a": {"k": 1, "l": 2}, "b": {"k": 3, "l": 2}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [1", r"run\.yaml:\d+: is not YAML"),
        (b"a: 1\nb:\n  c: 1\n  c: 2\n", r"run\.yaml:4: is not YAML: 'c' is given twice"),
        (
            b"a: !!python/object/apply:os.system ['true']\n",
            r"run\.yaml:1: is not YAML: could not determine a constructor",
        ),
        (b"\xff\xfe\x00", r"run\.yaml: is not UTF-8"),
        (b"a: b: c\n", r"run\.yaml:1: is not YAML: mapping values"),
        (b"- a\n", r"run\.yaml: a mapping of settings was expected, not a list"),
        (b"a: " + b"9" * 5000, r"run\.yaml: is not YAML"),
    ],
)
def test_bad_run_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        config.load(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"run\.yaml: cannot be read \(No such file or directory\)"):
        config.load(tmp_path / "run.yaml")
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert config.load(tmp_path / "empty.yaml") == {}


def test_assignments_reach_into_mappings_components_and_lists(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("task: nli\ncuration: [correct, {name: length, high: 3}]\ntrain: {steps: 1}\n")
    sets = ["task.size=500", "train.rate=5e-5", "curation.1.high=9", "curation.0=agree", "new.deep.key=[a, yes]", "x="]
    assert config.load(path, sets) == {
        "task": {"name": "nli", "size": 500},
        "curation": ["agree", {"name": "length", "high": 9}],
        "train": {"steps": 1, "rate": 5e-5},
        "new": {"deep": {"key": ["a", "yes"]}},
        "x": "",
    }
    assert config.load(path, ["curation.1=agree"])["curation"][1] == {"name": "agree"}
    assert config.load(path, ["task={name: sums, size: 3}", "task.size=4"])["task"] == {"name": "sums", "size": 4}


@pytest.mark.parametrize(
    "assignment", ["steps", "=5", "a..b=1", ".a=1", "a.=1", "a=[1", "curation.2=agree", "curation.x.k=1"]
)
def test_malformed_assignments(assignment: str) -> None:
    with pytest.raises(ConfigError, match="--set "):
        runfile.assign({"curation": ["correct", "length"]}, assignment)


def test_the_environment_fills_in_and_all_unset_names_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHERE", "http://127.0.0.1")
    for name in ("NOT_SET_A", "NOT_SET_B"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "run.yaml"
    path.write_text("teacher: {url: '${WHERE}/v1'}\nprompts: ['$${not a name}', '$5', '${', '${a b}']\n")
    assert config.load(path) == {
        "teacher": {"url": "http://127.0.0.1/v1"},
        "prompts": ["${not a name}", "$5", "${", "${a b}"],
    }
    with pytest.raises(ConfigError) as caught:
        config.load(path, ["a=${NOT_SET_A}", "b.c=x${NOT_SET_B}y"])
    assert caught.value.problems == [
        "the settings name ${NOT_SET_A}, which is not set in the environment",
        "the settings name ${NOT_SET_B}, which is not set in the environment",
    ]


@pytest.mark.parametrize(
    ("said", "steps", "epochs"),
    [
        ({}, 10_000, 3),
        ({"batch_size": 8}, 10_000, 3),
        ({"steps": 600}, 600, None),
        ({"steps": 600, "epochs": 2}, 600, 2),
        ({"epochs": 2}, 10_000, 2),
    ],
)
def test_steps_that_are_said_are_not_outvoted_by_a_recipes_epochs(
    said: dict[str, int], steps: int, epochs: float | None
) -> None:
    made = config.build(Rd, {"task": "sums", "teacher": "scripted", "train": said})
    assert (made.train.steps, made.train.epochs, made.train.schedule) == (steps, epochs, "constant")


def test_steps_that_are_set_displace_the_epochs_of_a_file_and_of_a_grid() -> None:
    settings: dict[str, Any] = {"train": {"epochs": 40, "batch_size": 8}}
    assert overlaid(settings, {"train": {"steps": 9}}) == {"train": {"steps": 9, "batch_size": 8}}
    assert overlaid(settings, {"train": {"steps": 9, "epochs": 2}})["train"]["epochs"] == 2
    config.assign(settings, "train.steps=5")
    assert settings == {"train": {"steps": 5, "batch_size": 8}}
    config.assign(settings, "train.epochs=3")
    assert settings["train"]["epochs"] == 3


def test_a_template_need_not_be_quoted_twice(tmp_path: Path) -> None:
    settings: dict[str, Any] = {}
    config.assign(settings, "task.input={{ q }} or {{ r }}")
    config.assign(settings, "train={steps: 3}")
    assert settings == {"task": {"input": "{{ q }} or {{ r }}"}, "train": {"steps": 3}}
    (tmp_path / "run.yaml").write_text("task:\n  input: {{ q }}\n")
    with pytest.raises(ConfigError, match=r"run\.yaml:2.*quotes"):
        config.load(tmp_path / "run.yaml")


def test_settings_stay_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.build(Outer, {"task": "t"}).task = "u"  # type: ignore[misc]


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.floats(allow_nan=False) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1, max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["a", "b", "yes", "no", "1", "null"]), plain, max_size=3))
def test_what_is_dumped_is_read_back_the_same(tmp_path_factory: pytest.TempPathFactory, value: dict[str, Any]) -> None:
    path = tmp_path_factory.mktemp("run") / "run.yaml"
    path.write_text(runfile.dump(value), encoding="utf-8")
    again = config.load(path)
    assert again == value
    assert repr(again) == repr(value)  # 1 == 1.0 == True, but they are not the same setting


@pytest.mark.parametrize(
    "text",
    [
        "yes",
        "1e3",
        "5e-5",
        "0123",
        "1:30",
        "2026-11-20",
        "~",
        "",
        "${HOME}",
        "$${x}",
        "a: b",
        "# c",
        "1_000",
        "=",
        "<<",
    ],
)
def test_texts_that_look_like_something_else(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.yaml").write_text(runfile.dump({"x": text, text or "empty": 1}), encoding="utf-8")
    if "${" in text:
        return  # keys are never expanded, so they are not escaped; the value is checked below
    assert config.load(tmp_path / "run.yaml") == {"x": text, text or "empty": 1}


def test_a_dollar_survives(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(runfile.dump({"x": "${HOME} $${x} $"}), encoding="utf-8")
    assert config.load(tmp_path / "run.yaml") == {"x": "${HOME} $${x} $"}

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmdistill import render
from lmdistill.errors import ConfigError
from lmdistill.types import Example, Hit, Passage

CUES = ["So the answer is", "So the answer is:", " So the answer is: ", "\nAnswer:", "####", "Answer:", "[label]"]


# --- templates ---


def test_templates_see_fields_and_passages_but_never_the_label() -> None:
    example = Example("e1", "Who?", label="SECRET", choices=("a", "b"), fields={"premise": "It rains."})
    values = render.values_of(example, [Hit(Passage("p", "Rain is wet."), 1.0)])
    text = render.render("{{ premise }} {{ input }} {{ choices|join('/') }} {{ passages[0].text }}", values)
    assert text == "It rains. Who? a/b Rain is wet."
    with pytest.raises(ConfigError, match="'label' is undefined"):
        render.render("{{ label }}", values)
    assert render.render("{{ label }}", render.values_of(example, label=example.label)) == "SECRET"


def test_an_unknown_name_is_named_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'premis' is undefined; did you mean 'premise'\? Known names: id, premise"):
        render.render("Look: {{ premis }}", {"premise": "x", "id": "1"})
    with pytest.raises(ConfigError, match="has no attribute 'txt'"):
        render.render("{{ row.txt }}", {"row": {"text": "x"}})


def test_an_optional_name_may_be_tested_for() -> None:
    assert render.render("{% if hint is defined %}{{ hint }}{% else %}none{% endif %}", {}) == "none"


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ x.__init__.__globals__ }}",
        "{{ x.append(1) }}",
        "{% for i in range(10000000) %}x{% endfor %}",
        "{{ 1 / 0 }}",
        "{{ 1 + 'a' }}",
        "{{ x|nosuch }}",
        "{% for %}",
        "{% include '/etc/passwd' %}",
        "{{ x",
    ],
)
def test_unsafe_and_broken_templates_are_refused_with_one_message(template: str) -> None:
    with pytest.raises(ConfigError) as caught:
        render.render(template, {"x": [0]})
    assert str(caught.value).startswith("template ")
    assert len(caught.value.problems) == 1


def test_a_syntax_error_says_the_line() -> None:
    with pytest.raises(ConfigError, match="line 3"):
        render.render("one\ntwo\n{% endfor %}", {})


def test_check_reports_all_unknown_names_before_any_row_is_read() -> None:
    problems = render.check("{{ a }} {{ quesiton }} {{ zzz }}", ["a", "question"], "prompt")
    assert problems == [
        "prompt: unknown name 'quesiton'; did you mean 'question'? Known: a, question",
        "prompt: unknown name 'zzz'. Known: a, question",
    ]
    assert render.check("{{ a }}", ["a"]) == []
    assert "unexpected" in render.check("{{ a", ["a"])[0]


def test_text_is_not_escaped_and_data_is_not_a_template() -> None:
    assert render.render("{{ x }}\n", {"x": "<b> & {{ y }}"}) == "<b> & {{ y }}\n"


# --- passages ---


def test_passages_block() -> None:
    passages = [Passage("1", "one", "T"), Passage("2", "two\n lines")]
    assert render.passages_block(passages, lead="Knowledge: ", between="\t") == "Knowledge: T: one\ttwo lines"
    assert render.passages_block([Hit(passages[1], 0.5)], numbered=True) == "[1] two lines"
    assert render.passages_block([], lead="Knowledge: ") == ""


# --- rationale and answer ---


@pytest.mark.parametrize("cue", CUES)
@pytest.mark.parametrize(("rationale", "answer"), [("6 + 6 = 12.", "12"), ("", "(b) no"), ("Two\n\nparagraphs", "yes")])
def test_split_is_the_inverse_of_join(cue: str, rationale: str, answer: str) -> None:
    assert render.split_rationale(render.join_rationale(rationale, answer, cue), cue) == (rationale, answer)


words = st.text(st.sampled_from("abc 12.()\n"), max_size=30).map(lambda text: " ".join(text.split()))


@given(rationale=words, answer=words.filter(bool), cue=st.sampled_from(CUES))
def test_round_trip(rationale: str, answer: str, cue: str) -> None:
    assert render.split_rationale(render.join_rationale(rationale, answer, cue), cue) == (rationale, answer)


@given(text=st.text(), cue=st.sampled_from(CUES))
def test_splitting_never_raises_and_loses_nothing_but_the_cue(text: str, cue: str) -> None:
    rationale, answer = render.split_rationale(text, cue)
    assert rationale in text
    assert answer is None or (answer in text and answer)


@pytest.mark.parametrize(
    "text",
    [
        "6 and 6 . so the answer is : 12",
        "6 and 6 . SO THE ANSWER IS 12",
        "6 and 6 . So  the\nanswer is: 12",
        "6 and 6 . so the answer is : 12\n\nQ: another question",
    ],
)
@pytest.mark.parametrize("cue", ["So the answer is", "So the answer is:"])
def test_word_level_tokenizers_change_case_and_spacing(text: str, cue: str) -> None:
    assert render.split_rationale(text, cue) == ("6 and 6 .", "12")


def test_words_that_merely_look_like_the_cue_are_passed_over() -> None:
    assert render.split_rationale("Also the answer isn't here", "So the answer is").answer is None
    assert render.split_rationale("The answer depends.\nAnswer: C", "\nAnswer:") == ("The answer depends.", "C")


def test_the_last_cue_with_an_answer_counts() -> None:
    cue = "So the answer is"
    assert render.split_rationale("So the answer is 3? No. So the answer is 4", cue).answer == "4"
    assert render.split_rationale("It is 3. So the answer is 3 So the answer is", cue) == ("It is 3.", "3")
    assert render.split_rationale("It is so. So the answer is", cue) == ("It is so.", None)


def test_a_cue_without_any_mark_is_refused() -> None:
    with pytest.raises(ConfigError, match="answer cue"):
        render.split_rationale("x", "  ")

"""Answers are read out of free text without an error and without a guess."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmdistill.answers import choice_in, line_in, match_choice, value_in
from lmdistill.reading import cut_run_on, read_answer, read_text

COLOURS = ["red", "blue", "dark blue", "sea green"]
YES_NO = ["yes", "no"]


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("red", "red"),
        ("Red.", "red"),
        ("(b)", "blue"),
        ("(B).", "blue"),
        ("b", "blue"),
        ("b.", "blue"),
        ("b).", "blue"),
        ('"b".', "blue"),
        ('"b."', "blue"),
        ("D. sea green", "sea green"),
        ("(c) dark blue", "dark blue"),
        ("(c) Dark Blue.", "dark blue"),
        ("option (a)", "red"),
        ("choice c).", "dark blue"),
        ("**(b) blue**", "blue"),
        ("it is dark blue", "dark blue"),  # the longest choice, not 'blue' inside it
        ("(d) seagreen", "sea green"),  # another spelling of the letter's own choice
        ("red because blue is too dark", "red"),
        ("(a), as (b) is wrong", "red"),
        ("red. Not blue", "red"),
        ("not red but blue", "blue"),
    ],
)
def test_one_choice_is_named(said: str, answer: str) -> None:
    assert match_choice(said, COLOURS) == answer


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("", "nothing after the answer cue"),
        ("either (a) red or (b) blue", "names several choices"),
        ("red or sea green", "names several choices"),
        ("blue or dark blue", "names several choices"),
        ("(a) blue", "letter and text disagree"),
        ("(a) a warm colour", "letter and text disagree"),
        ("(f)", "a letter beyond the choices"),
        ("mauve", "answer is not one of the choices"),
        ("not red", "answer is not one of the choices"),
        ("predict", "answer is not one of the choices"),  # 'red' inside a word
        ("a red one or a blue one", "names several choices"),
    ],
)
def test_no_guess_between_choices(said: str, reason: str) -> None:
    assert choice_in(said, COLOURS) == (None, reason, None)


def test_letters_count_only_where_the_choices_have_letters() -> None:
    labels = ["entailment", "neutral", "contradiction"]
    assert choice_in("(b)", labels, lettered=True).answer == "neutral"
    assert choice_in("(b)", labels, lettered=False).answer is None
    assert choice_in("a contradiction", labels, lettered=False).answer == "contradiction"


def test_choices_with_reasons_quotes_and_possessives_in_them() -> None:
    choices = ["it melts, because it is warm", "it stays, because it is cold", "father's", "St. Paul. Or not"]
    for index, choice in enumerate(choices):
        assert match_choice(f"({chr(97 + index)}) {choice}.", choices) == choice
        assert match_choice(choice, choices) == choice


@pytest.mark.parametrize(
    ("text", "rationale", "answer"),
    [
        ("It is hot. So the answer is (a) red.", "It is hot.", "red"),
        ("It is hot, so the answer is red.\n\nQ: What now?\nA: So the answer is (b) blue.", "It is hot", "red"),
        ("Rationale: It is hot. Hence the answer is Answer: (a)", "It is hot.", "red"),
        ("<Explanation>: It is hot.\n<Answer>: (a) red.", "It is hot.", "red"),
        ("It is hot.\nAnswer: A", "It is hot.", "red"),
        ("It is hot.\n\n**Answer:** (a) red", "It is hot.", "red"),
        ("It is hot. Therefore, among A through D, the answer is A.", "It is hot.", "red"),
        ("It is hot. Therefore, the answer (one of four) is\n\nred", "It is hot.", "red"),
        ("The correct answer is blue? No. So the answer is red.", "The correct answer is blue? No.", "red"),
        ("The answer is not blue. So the answer is red.", "The answer is not blue.", "red"),
        ("It is hot. Option A, red, is the correct answer.", "It is hot. Option A, red, is the correct answer.", "red"),
        ("(a) red\n\nRationale: It is hot.", "It is hot.", "red"),
        ("Red. It is hot.", "It is hot.", "red"),
        ("It is hot.\nred", "It is hot.", "red"),
        ("so it is hot . so the answer is red", "so it is hot .", "red"),
        ("so it is hot . so the answer is : ( a ) red .", "so it is hot .", "red"),
        ("It is hot: \\boxed{A}", "It is hot:", "red"),
    ],
)
def test_completions_of_many_shapes(text: str, rationale: str, answer: str) -> None:
    assert read_answer(text, COLOURS) == (rationale, answer, None)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        (" \n ", "empty"),
        ("It is hot.", "no answer cue"),
        ("Both red and blue would do.", "no answer cue"),
        ("So the answer is", "nothing after the answer cue"),
        ("So the answer is (a) red. So the answer is (b) blue.", "gives several different answers"),
        ("So the answer is unknown. The answer is red.", "answer is not one of the choices"),
        ("I cannot tell.\n\nQ: What?\nA: So the answer is (a) red.", "no answer cue"),  # of an invented question
    ],
)
def test_completions_without_an_answer(text: str, reason: str) -> None:
    parsed = read_answer(text, COLOURS)
    assert (parsed.answer, parsed.reason) == (None, reason)


def test_the_same_answer_twice_is_one_answer() -> None:
    assert read_answer("So the answer is (a). Thus the answer is red.", COLOURS).answer == "red"
    text = "Hence the answer is 12 - 13 = -1.\nAnswer: -1"
    assert read_answer(text, read=value_in).answer == "12 - 13"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is (84 / 2).\n\nQ: There are 120", "(84 / 2)"),
        ("Therefore, the answer (arabic numerals) is\n\n1792", "1792"),
        ("So it costs #### 1,200", None),  # a mark inside a line is no mark
        ("It costs\n#### 1,200", "1,200"),
        ("The answer is $\\boxed{42}$", "42"),
        ("The answer is 42 apples.", "42"),
        ("The answer is 3 pears and 4 plums.", None),
        ("The answer is (8 / 4) and (6 / 4).", None),
    ],
)
def test_values(text: str, answer: str | None) -> None:
    assert read_answer(text, read=value_in).answer == answer


def test_lines_and_texts() -> None:
    assert line_in('"fnel".').answer == "fnel"
    assert read_answer("Because. So the answer is the old mill.\nReally.").answer == "the old mill"
    assert read_text("A plan. Summary: One. Two.", cue="Summary:") == ("A plan.", "One. Two.", None)
    assert read_text("One. Two.", cue="Summary:", bare=True) == ("", "One. Two.", None)
    assert read_text("One. Two.", cue="Summary:").reason == "no answer cue"
    assert read_text("the order is anna . so the answer is anna runs .", cue="so the answer is").answer == "anna runs ."


def test_an_own_cue_is_found_in_any_spacing() -> None:
    assert read_answer("It is hot.\n### Label : red", ["red", "blue"], cue="### Label:").answer == "red"
    assert read_answer("it is hot . ### label: red", ["red", "blue"], cue="### Label:").answer == "red"


def test_run_on_is_cut_at_the_beginning_of_a_line_only() -> None:
    assert cut_run_on("Answer: yes\n\nPremise: A man") == "Answer: yes"
    assert cut_run_on("The premise: a man. Q: no") == "The premise: a man. Q: no"
    assert cut_run_on("Q: What is it?\nA: red") == "Q: What is it?\nA: red"
    assert cut_run_on("yes\nq : what", ("Q:",)) == "yes"


PIECES = st.sampled_from(
    [
        "So the answer is ",
        "Answer:",
        "(a)",
        "(b) ",
        "red",
        "blue",
        " or ",
        "\n",
        "\n\nQ:",
        ".",
        " not ",
        "A",
        "42",
        "= ",
    ]
)


@given(st.one_of(st.text(), st.lists(st.one_of(PIECES, st.text(max_size=5)), max_size=14).map("".join)))
@settings(max_examples=500)
def test_reading_never_fails_and_never_invents(text: str) -> None:
    for choices in (COLOURS, YES_NO):
        for lettered in (True, False):
            parsed = read_answer(text, choices, lettered=lettered)
            assert parsed.answer is None or parsed.answer in choices
            assert (parsed.answer is None) == (parsed.reason is not None)
    for parsed in (read_answer(text), read_answer(text, read=value_in), read_text(text, cue="So the answer is")):
        assert (parsed.answer is None) == (parsed.reason is not None)


@given(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=6), st.text(max_size=30))
def test_any_choices_are_survived(choices: list[str], text: str) -> None:
    found = choice_in(text, choices)
    assert found.answer is None or found.answer in choices


@given(st.sampled_from(COLOURS), st.text(alphabet="abcdefg .,\n", max_size=40))
def test_what_is_written_by_the_rules_is_read_back(choice: str, rationale: str) -> None:
    letter = chr(97 + COLOURS.index(choice))
    assert read_answer(f"{rationale}\nSo the answer is ({letter}) {choice}.", COLOURS).answer == choice

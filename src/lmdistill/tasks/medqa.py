"""MedQA-USMLE: medical licence questions with four or five choices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from lmdistill.tasks import Exemplar
from lmdistill.tasks._released import Released, Style, chosen, listed, others, with_choices
from lmdistill.tasks._rows import Row
from lmdistill.types import Example


@dataclass(frozen=True)
class MedQA(Released):
    """Jin et al. 2020 (English); KARD's input '{question} A. ... B. ... C. ... D. ...'."""

    hub: str = "GBaker/MedQA-USMLE-4-options"
    style: Style = "letters"

    hub_splits: ClassVar[Mapping[str, str]] = {"train": "train", "test": "test"}
    run_on = ("Q:", "Question:")

    def example(self, row: Row, name: str) -> Example:
        choices = listed(row, "choices", "options")
        label = chosen(row, choices, "label", "answer", "answer_idx")
        text = with_choices(row.text("question"), choices, self.style)
        return Example(name, text, label, choices, others(row, "choices", "options", "label", "answer", "answer_idx"))

    @property
    def instruction(self) -> str:
        return (
            "The question is about medicine. Think step by step with what you know, "
            f"then end with '{self.answer_cue} (x) ...'."
        )

    @property
    def exemplars(self) -> tuple[Exemplar, ...]:
        made = (
            (
                "A 30-year-old sailor who has eaten no fresh food for months has bleeding gums and bruises easily. "
                "Which vitamin does he lack?",
                ("Vitamin A", "Vitamin B12", "Vitamin C", "Vitamin K"),
                "Fresh fruit and vegetables bring vitamin C, which is needed to build collagen. Without it the gums "
                "bleed and small vessels break: scurvy.",
                "(c) Vitamin C",
            ),
            (
                "A 4-year-old girl has itching around the anus at night, and eggs are found with adhesive tape. Which "
                "organism is the cause?",
                ("Enterobius vermicularis", "Giardia lamblia", "Taenia saginata", "Plasmodium vivax"),
                "Itching at night comes from worms that lay their eggs around the anus, where tape picks them up. That "
                "is the pinworm, Enterobius vermicularis.",
                "(a) Enterobius vermicularis",
            ),
            (
                "A man takes a drug against high blood pressure and has had a dry cough since. Which drug is it?",
                ("Amlodipine", "Lisinopril", "Hydrochlorothiazide", "Losartan"),
                "A dry cough comes from bradykinin, which builds up when the converting enzyme is blocked. Of these "
                "only lisinopril blocks that enzyme.",
                "(b) Lisinopril",
            ),
        )
        return tuple(Exemplar(with_choices(q, choices, self.style), r, y) for q, choices, r, y in made)

"""Knowledge distillation for generation: the teacher's texts and distributions on labelled and unlabelled inputs."""

from __future__ import annotations

from dataclasses import dataclass

from lmdistill.recipes._generation import Generation


@dataclass(frozen=True)
class Kd4gen(Generation):
    """Train on the teacher's distributions at labels and pseudo-targets, then fine-tune on the labels.

    The paper's stages are settings: `learns` (`label_only`, `logit_kd`, `noisy_kd`, `feature_kd`, `pseudo_target`,
    `joint_teaching`), `pseudo.number` (0, 1, many), `pseudo.unlabelled`, `pseudo.decoding` and `pseudo.temperature`.

    Paper:    KD4Gen, arXiv 2305.02031
    Differs:  from the authors' code: the linear schedule ends with the run (theirs is laid out for twice as long), and
              empty predictions count as wrong
    """

"""Logit distillation: the student's next-token distribution follows the teacher's, live or stored."""

from __future__ import annotations

from dataclasses import dataclass

from lmdistill.objectives._distilling import Distilling


@dataclass(frozen=True)
class LogitKD(Distilling):
    """Learn the teacher's distribution at every token of given texts.

    Paper:     KD4Gen, arXiv 2305.02031, L_log (section 2); Hinton et al., arXiv 1503.02531, for `temperature`
    Equation:  L_log(x, y) = sum_t KL(P_T(. | x, y_<t) || P_S(. | x, y_<t)), averaged by `reduction`, times tau^2;
               with pseudo-targets y^T: L_log(x, y^T) + L_log(x, y)
    Data:      needs the teacher's logits (a model, or stored distributions); a label or pseudo-targets
    Shapes:    role 'target', one row per text
    Differs:   from the paper: none; from the authors' code: a label and a pseudo-target of one input share a batch
               (there they are rows of their own), and a negative temperature is refused
    Relations: stored with K = V equals live; `divergence: jsd` with beta 0 is forward_kl
    """

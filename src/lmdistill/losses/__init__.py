"""Losses: pure, unreduced tensor functions, several related ones per file.

A loss takes tensors and a mask, works in float32 and returns one number per row or per position; it knows no model, no
settings and no reduction (objectives and the loop see to those), and never changes its arguments. To add one: a
function in the file of its family, or a new file `losses/NAME.py`.
"""

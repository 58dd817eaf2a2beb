"""Rows of a batch picked, joined and numbered by input: what objectives over several rationales share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from lmdistill.losses.contrast import Scheme, scheme_weights
from lmdistill.students import IGNORED, Targets


def rows_where(rows: Targets, where: Tensor) -> Targets:
    """The rows for which `where` [R] is true, their labels cut to the longest."""
    labels = rows.labels[where]
    width = int((labels != IGNORED).sum(-1).max()) if labels.shape[0] else 0
    return Targets(labels[:, :width], rows.source[where], rows.item[where], rows.group[where], rows.weight[where])


def open_ended(rows: Targets, which: Sequence[bool], ends: Sequence[int]) -> Targets:
    """The rows without the end of sequence, where `which` says so for a row."""
    chosen = torch.tensor(which, dtype=torch.bool, device=rows.labels.device)
    lengths = (rows.labels != IGNORED).sum(-1)
    last = (lengths - 1).clamp(min=0).unsqueeze(-1)
    ended = torch.isin(rows.labels.gather(1, last), torch.tensor(ends, device=rows.labels.device)).squeeze(-1)
    drop = chosen & ended & (lengths > 1)
    labels = torch.where(drop.unsqueeze(-1), rows.labels.scatter(1, last, IGNORED), rows.labels)
    return replace(rows, labels=labels)


def joined(several: Sequence[Targets]) -> Targets | None:
    """Rows of several roles as one, in order; None where there are none at all."""
    filled = [rows for rows in several if rows.labels.shape[0]]
    if len(filled) < 2:
        return filled[0] if filled else None
    width = max(rows.labels.shape[1] for rows in filled)
    pad = torch.nn.functional.pad
    labels = [pad(rows.labels, (0, width - rows.labels.shape[1]), value=IGNORED) for rows in filled]
    return Targets(
        torch.cat(labels),
        torch.cat([rows.source for rows in filled]),
        torch.cat([rows.item for rows in filled]),
        torch.cat([rows.group for rows in filled]),
        torch.cat([rows.weight for rows in filled]),
    )


def crowded(rows: Targets) -> Tensor:
    """Which rows [R] share their input with other rows of the role."""
    return torch.bincount(rows.item)[rows.item] > 1


def places(rows: Targets) -> tuple[Tensor, Tensor]:
    """For each row [R] its input, numbered from 0 without gaps, and its number among the input's rows."""
    _, line = torch.unique(rows.item, return_inverse=True)
    order = torch.argsort(line, stable=True)
    counts = torch.bincount(line)
    place = torch.empty_like(line)
    place[order] = torch.arange(len(line), device=line.device) - (counts.cumsum(0) - counts)[line[order]]
    return line, place


def opinions(rows: Targets, *, picked: bool) -> Tensor:
    """What the judge's opinion makes of each row [R]: its own weight, or the mean over its input's rows."""
    if picked:
        return rows.weight
    line, place = places(rows)
    grid = rows.weight.new_full((int(line.max()) + 1, int(place.max()) + 1), torch.nan)
    grid[line, place] = rows.weight
    return grid.nanmean(-1)[line]


def one_sided(rows: Targets, values: Tensor, *, scheme: Scheme, negative: bool) -> Tensor:
    """Shares [R] of rows in their inputs' losses from values [R], by way of one line per input."""
    line, place = places(rows)
    shape = (int(line.max()) + 1, int(place.max()) + 1)
    grid, quality = values.new_zeros(shape), values.new_zeros(shape)
    mask = torch.zeros(shape, dtype=torch.bool, device=values.device)
    grid[line, place], quality[line, place], mask[line, place] = values, rows.weight, True
    return scheme_weights(grid, mask, scheme=scheme, negative=negative, quality=quality)[line, place]


def present(several: Iterable[Targets], items: int) -> Tensor:
    """Which of the batch's items [items] have a row of some weight."""
    found = torch.zeros(items, dtype=torch.bool)
    for rows in several:
        found |= torch.bincount(rows.item[rows.weight > 0].cpu(), minlength=items) > 0
    return found


def mean_tokens(rows: Targets, items: int) -> float:
    """Target tokens of an input as a mean over its rows (before one is picked), summed over inputs of some weight."""
    tokens = ((rows.labels != IGNORED).sum(-1) * (rows.weight > 0)).float().cpu()
    total = torch.zeros(items).index_add(0, rows.item.cpu(), tokens)
    return float((total / torch.bincount(rows.item.cpu(), minlength=items).clamp(min=1)).sum())

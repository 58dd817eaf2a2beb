"""What a model costs to run: parameters, arithmetic, latency, throughput and memory, as KD4Gen measures them."""

from __future__ import annotations

import functools
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple

from lmdistill.errors import DataError
from lmdistill.types import Annotation, Prediction, Sampling, View

MIB = 1 << 20


@dataclass(frozen=True)
class ProfileSettings:
    """How a model is measured.

    Latency is the median time of one answer of `new_tokens` tokens at most, one prompt at a time, over `calls` calls
    after `warmups` (theirs: 25 to 100 after 5 to 10). Throughput is at the largest batch, found by doubling up to
    `largest_batch`, whose generation stays within `memory_mib` (theirs: 16 GB).
    """

    new_tokens: int = 32
    warmups: int = 5
    calls: int = 25
    largest_batch: int = 64
    memory_mib: float = 16_384


@dataclass(frozen=True)
class Profile:
    """The costs. `flops` are those of one forward pass over one prompt and its target (two for each multiply-add);
    `batch` is the one of the highest throughput, `peak_mib` the memory that it took beyond what was held before it (on
    an accelerator: in all)."""

    parameters: int
    flops: float
    latency_ms: float
    latency_p95_ms: float
    throughput_per_minute: float
    batch: int
    peak_mib: float
    prompts: int
    source_tokens: float


def profile(student: Any, prompts: Sequence[str], settings: ProfileSettings = ProfileSettings()) -> Profile:
    """Measure an open student, or a teacher opened as one.

    Raises:
        DataError: no prompts.
    """
    if not prompts:
        raise DataError("a profile needs prompts; give those of a split")
    student.eval()
    single = Sampling(max_tokens=settings.new_tokens)
    times = []
    for call in range(settings.warmups + settings.calls):
        started = time.perf_counter()
        student.generate([prompts[call % len(prompts)]], single)
        _wait(student)
        times.append(1000 * (time.perf_counter() - started))
    measured = times[settings.warmups :]
    fastest = _fastest(student, prompts, settings)
    lengths = [student.length(View(prompt, "", "t"))[0] for prompt in prompts]
    return Profile(
        parameters=sum(p.numel() for p in student.parameters()),
        flops=forward_flops(student, prompts[0], settings.new_tokens),
        latency_ms=median(measured),
        latency_p95_ms=quantiles(measured, n=20)[-1] if len(measured) > 1 else measured[0],
        throughput_per_minute=60 * fastest.size / fastest.seconds if fastest.seconds < math.inf else 0.0,
        batch=fastest.size,
        peak_mib=fastest.peak_mib,
        prompts=len(prompts),
        source_tokens=sum(lengths) / len(lengths),
    )


class _Fastest(NamedTuple):
    """The batch with the highest throughput: its size, how long it took, and the most memory it held."""

    size: int
    seconds: float
    peak_mib: float


def _fastest(student: Any, prompts: Sequence[str], settings: ProfileSettings) -> _Fastest:
    """Sizes are doubled until the memory, the limit or the device's own end is reached."""
    import torch

    sampling = Sampling(max_tokens=settings.new_tokens)
    best = _Fastest(1, math.inf, 0.0)
    size = 1
    while size <= settings.largest_batch:
        chosen = [prompts[i % len(prompts)] for i in range(size)]
        started = time.perf_counter()
        try:
            used = peak_mib(functools.partial(student.generate, chosen, sampling, batch_size=size), student)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            break
        took = time.perf_counter() - started
        if used > settings.memory_mib:
            break
        if took / size < best.seconds / best.size:
            best = _Fastest(size, took, used)
        size *= 2
    return best


def forward_flops(student: Any, prompt: str, target_tokens: int) -> float:
    """Floating-point operations of one forward pass over a prompt and a target of so many tokens."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    batch = student.collate([], [[View(prompt, "", "t")]])
    batch = student.with_targets(batch, "t", [[student.eos] * target_tokens]).to(student.device)
    # Of the fused attentions some are not counted; written out as matrix products, all are.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        student(batch)
    return float(counter.get_total_flops())


def peak_mib(work: Callable[[], Any], student: Any = None) -> float:
    """The most memory in MiB that a piece of work takes: of an accelerator all of it, of a CPU what is added.

    On a CPU the process's resident memory is read every 2 ms, so what is freed sooner may be missed.
    """
    device = getattr(student, "device", None)
    if device is not None and device.type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats(device)
        work()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) / MIB
    before, highest, done = resident(), [0], threading.Event()

    def watch() -> None:
        while not done.is_set():
            highest[0] = max(highest[0], resident())
            done.wait(0.002)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        work()
    finally:
        highest[0] = max(highest[0], resident())
        done.set()
        watcher.join()
    return max(0, highest[0] - before) / MIB


def resident() -> int:
    """Resident memory of this process in bytes (its highest so far where the system does not tell the present one)."""
    status = Path("/proc/self/statm")
    if status.exists():
        import os

        return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    import resource
    import sys

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def _wait(student: Any) -> None:
    if student.device.type == "cuda":
        import torch

        torch.cuda.synchronize(student.device)


def reference_predictions(student: Any, objective: Any, items: Sequence[Annotation]) -> list[Prediction]:
    """The gold texts as predictions, each with the probability per token that a student gives it: for metric `nll`.

    Examples without a label are left out.
    """
    labelled = [item for item in items if item.example.label]
    sources = [objective.prompt(item) for item in labelled]
    targets = [item.example.label or "" for item in labelled]
    lengths = [student.length(View("", target, "t"))[1] for target in targets]
    scored = zip(labelled, targets, student.logprobs(sources, targets), lengths, strict=True)
    return [
        Prediction(item.example, target, confidence=math.exp(logprob / length), text=target)
        for item, target, logprob, length in scored
    ]


def gap_closed(distilled: float, student: float, teacher: float) -> float:
    """The share of the distance between a fine-tuned student and its teacher that distillation closes.

    Equation:  (KD - S) / (T - S)

    Raises:
        ValueError: teacher and student are equal.
    """
    if teacher == student:
        raise ValueError("the teacher is no better than the student: there is no gap to close")
    return (distilled - student) / (teacher - student)

"""Distilling Step-by-Step training: this package against a plain `Seq2SeqTrainer` in the published two-pass layout.

    python benchmarks/train_speed.py                     # fp32 and bf16, rows of the papers' lengths
    python benchmarks/train_speed.py --precision bf16 --rounds 5 --width 256

Both train the same model on the same rows with the same batch size, optimizer and precision, taking turns in one
process. The baseline does what the published code does: for each batch one forward pass on 'predict: ' rows and one on
'explain: ' rows, each padded to its longest row by `DataCollatorForSeq2Seq`, losses weighted by half; and it has the
cure for Trainer's loss scaling of T5 (its loss takes `num_items_in_batch`). The machine's own matrix-product rate is
measured between the turns; 'share' is the useful arithmetic of a step (real tokens only) over what that rate would do.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from lmdistill.loop import Loop
from lmdistill.objectives.step_by_step import StepByStep
from lmdistill.store import read_jsonl, stage
from lmdistill.students import _vocabulary as vocabularies
from lmdistill.students.seq2seq import Seq2seqStudent
from lmdistill.train import TrainSettings
from lmdistill.types import Annotation, Example, Rationale

VOCABULARY = 32_128


def made_rows(n: int, seed: int = 0) -> list[Annotation]:
    """Items whose lengths in pieces follow the word counts published for SVAMP with PaLM rationales (inputs 32, p95 46,
    rationales 28, p95 49, most 85), labels of 9 pieces."""
    rng = random.Random(seed)

    def words(mean: float, spread: float) -> str:
        count = max(4, round(rng.lognormvariate(-spread * spread / 2, spread) * mean))
        return " ".join(f"w{min(int(rng.paretovariate(0.6)), 30_000)}" for _ in range(count))

    return [
        Annotation(Example(str(i), words(42, 0.23), words(9, 0.05)), (Rationale(words(46, 0.4)),)) for i in range(n)
    ]


def read_rows(path: Path, n: int) -> list[Annotation]:
    """Recorded answers: JSON Lines with `input` (or `premise` and `hypothesis`), `label` and `llm_rationale`."""
    items = []
    for number, row in read_jsonl(path):
        source = row.get("input") or f"{row['premise']}</s>{row['hypothesis']}"
        if (row["llm_rationale"] or "").strip() and len(items) < n:
            items.append(Annotation(Example(str(number), source, row["label"]), (Rationale(row["llm_rationale"]),)))
    return items


def made_tokenizer() -> Any:
    """A vocabulary of made words."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit

    from lmdistill.students._vocabulary import _wrapped

    words = ["<pad>", "</s>", "<unk>", "predict:", "explain:", *(f"w{i}" for i in range(1, VOCABULARY - 4))]
    fast = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    fast.pre_tokenizer = WhitespaceSplit()
    return _wrapped(fast)


def make_student(width: int, layers: int, tokenizer: Any, seed: int = 0) -> Seq2seqStudent:
    """A T5 of the v1.1 shape with a 32,128-row head."""
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(seed)
    config = T5Config(
        vocab_size=VOCABULARY, d_model=width, d_kv=64, d_ff=2 * width, num_heads=width // 64, num_layers=layers,
        num_decoder_layers=layers, feed_forward_proj="gated-gelu", tie_word_embeddings=False, dropout_rate=0.0,
        decoder_start_token_id=0,
    )  # fmt: skip
    model = T5ForConditionalGeneration(config)
    with torch.no_grad():
        model.lm_head.weight *= 0.05  # a first loss of about log V
    return Seq2seqStudent(model, tokenizer, max_source=1024, max_target=256, overflow="middle")


def make_trainer(student: Seq2seqStudent, items: list[Annotation], batch: int, steps: int, bf16: bool, out: str) -> Any:
    """The published layout on the current transformers, with the cure for its loss scaling."""
    from transformers import DataCollatorForSeq2Seq, Seq2SeqTrainer, Seq2SeqTrainingArguments

    tokenizer, model = student.tokenizer, student.model
    collate = DataCollatorForSeq2Seq(tokenizer, model=model)

    class TwoTasks(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return len(items)

        def __getitem__(self, index: int) -> Any:
            item = items[index]
            pairs = {"pred": ("predict: ", item.example.label), "expl": ("explain: ", item.rationales[0].text)}
            return {
                name: {
                    "input_ids": tokenizer(prefix + item.example.input)["input_ids"],
                    "labels": tokenizer(text_target=target)["input_ids"],
                }
                for name, (prefix, target) in pairs.items()
            }

    class TwoPasses(Seq2SeqTrainer):
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None):
            return 0.5 * model(**inputs["pred"]).loss + 0.5 * model(**inputs["expl"]).loss

    arguments = Seq2SeqTrainingArguments(
        out, per_device_train_batch_size=batch, max_steps=steps, learning_rate=5e-5, bf16=bf16, use_cpu=True,
        save_strategy="no", report_to="none", disable_tqdm=True, logging_strategy="no", remove_unused_columns=False,
        dataloader_pin_memory=False, seed=0,
    )  # fmt: skip
    return TwoPasses(
        model, arguments, train_dataset=TwoTasks(),
        data_collator=lambda batch: {name: collate([row[name] for row in batch]) for name in ("pred", "expl")},
    )  # fmt: skip


def trainer_seconds(trainer: Any) -> float:
    """Seconds of the steps alone, without the set-up of `train`."""
    from transformers import TrainerCallback

    marks: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            marks.append(time.perf_counter())

        def on_train_end(self, *_: Any, **__: Any) -> None:
            marks.append(time.perf_counter())

    trainer.add_callback(Clock)
    trainer.train()
    return marks[-1] - marks[0]


def matrix_rate(bf16: bool, seconds: float = 0.7) -> float:
    """Floating-point operations a second of a large matrix product, in the precision of the run."""
    dtype = torch.bfloat16 if bf16 else torch.float32
    a, b = torch.randn(2048, 1024).to(dtype), torch.randn(1024, 4096).to(dtype)
    a @ b
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        a @ b
        done += 1
    return done * 2 * 2048 * 1024 * 4096 / (time.perf_counter() - start)


def useful_flops(student: Seq2seqStudent, items: list[Annotation]) -> float:
    """Arithmetic of one pass over the items, forward and backward, real tokens only: 6 x parameters x tokens, with the
    parameters that each kind of token meets (encoder; decoder and head; attention scores are left out)."""
    model = student.model
    encoder = sum(p.numel() for n, p in model.encoder.named_parameters() if "embed" not in n and p.ndim > 1)
    decoder = {n: p.numel() for n, p in model.decoder.named_parameters() if "embed" not in n and p.ndim > 1}
    cross = sum(v for n, v in decoder.items() if "EncDecAttention.k" in n or "EncDecAttention.v" in n)
    head = model.lm_head.weight.numel()
    total = 0.0
    for item in items:
        source = len(student.tokens("source", "predict: " + item.example.input))
        target = len(student.tokens("target", item.example.label or ""))
        target += len(student.tokens("target", item.rationales[0].text))
        total += 6 * (2 * source * (encoder + cross) + target * (sum(decoder.values()) - cross + head))
    return total


def check_losses(loop: Loop, trainer: Any, student: Seq2seqStudent, items: list[Annotation]) -> tuple[float, float]:
    """The loss of both layouts on the same rows."""
    objective = loop.objective
    views = [objective.views(item, 0, random.Random(0)) for item in items]
    batch = student.collate(items, views)
    with torch.no_grad(), loop._autocast():
        ours, _ = loop.step(batch, 0.0, objective.counts(batch))
        dataset = trainer.train_dataset
        index = [trainer.train_dataset_index[item.id] for item in items]
        theirs = trainer.compute_loss(student.model, trainer.data_collator([dataset[i] for i in index]))
    return float(ours), float(theirs)


def compare(bf16: bool, options: argparse.Namespace) -> None:
    """Alternate both trainings and print the medians."""
    items = read_rows(options.rows, options.items) if options.rows else made_rows(options.items)
    tokenizer = made_tokenizer()
    if options.vocabulary:
        tokenizer = vocabularies.build(str(options.vocabulary), (), size=VOCABULARY, trim=False)
    student = make_student(options.width, options.layers, tokenizer)
    settings = TrainSettings(
        steps=10**6, batch_size=options.batch, precision="bf16" if bf16 else "fp32", device="cpu",
        tokens_per_batch=10**6,
    )  # fmt: skip
    ours, theirs, rates = [], [], []
    with tempfile.TemporaryDirectory() as folder, stage(Path(folder) / "ours", "bench", settings={}) as opened:
        loop = Loop(student, StepByStep(), items, settings, opened, None, None, 0, {})
        student.train()
        trainer = make_trainer(student, items, options.batch, options.steps, bf16, folder)
        trainer.train_dataset_index = {item.id: i for i, item in enumerate(items)}
        loss, other = check_losses(loop, trainer, student, items[: options.batch])
        for turn in range(options.rounds + 1):
            start = time.perf_counter()
            for _ in range(options.steps):
                loop._update()
                loop.cursor.step += 1
            mine = time.perf_counter() - start
            trainer = make_trainer(student, items, options.batch, options.steps, bf16, folder)
            yours = trainer_seconds(trainer)
            if turn:  # the first turn warms up
                ours.append(mine)
                theirs.append(yours)
                rates.append(matrix_rate(bf16))
    done = options.steps * options.batch
    flops = useful_flops(student, items) * done / len(items)
    name = "bf16" if bf16 else "fp32"
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    mine, yours, rate = statistics.median(ours), statistics.median(theirs), statistics.median(rates)
    print(
        f"{name}: {done / mine:.1f} examples/s, Seq2SeqTrainer {done / yours:.1f}, "
        f"ratio {statistics.median(ratios):.2f} (turns {min(ratios):.2f} to {max(ratios):.2f}); "
        f"matrix products {rate / 1e9:.0f} GFLOP/s, "
        f"share {flops / mine / rate:.2f} against {flops / yours / rate:.2f}; loss {loss:.6f} against {other:.6f}"
    )


def main() -> None:
    """Parse the options and compare in both precisions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", choices=["fp32", "bf16"])
    parser.add_argument("--rows", type=Path, help="recorded answers (JSON Lines) instead of made ones")
    parser.add_argument("--vocabulary", type=Path, help="a sentencepiece model, for real text")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--items", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for bf16 in [options.precision == "bf16"] if options.precision else [False, True]:
        compare(bf16, options)


if __name__ == "__main__":
    main()

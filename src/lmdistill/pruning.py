"""Students by pruning: a teacher without some of its layers, as an ordinary transformers folder.

Works on whatever keeps its layers in a list: T5 and BART (encoder and decoder), GPT-2, OPT, Llama, Qwen (decoder).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lmdistill.errors import ConfigError, StoreError
from lmdistill.store import digest_file, stage

How = Literal["ends", "even"]
"""`ends`: the first half of what is kept from the front, the rest from the back (two layers: first and last, as KD4Gen
prunes). `even`: spread evenly, the first and the last among them."""

COUNTS = {
    "encoder": ("encoder_layers", "num_layers", "num_hidden_layers"),
    "decoder": ("num_decoder_layers", "decoder_layers", "num_hidden_layers", "n_layer"),
}
"""What configurations call the number of layers of a stack; the first that fits is set."""


@dataclass(frozen=True)
class Pruning:
    """How many layers stay, or which (by number, negative from the end); None keeps a stack as it is.

    >>> Pruning(decoder=2).chosen("decoder", 12), Pruning(decoder=(0, 5, -1)).chosen("decoder", 12)
    ((0, 11), (0, 5, 11))
    >>> Pruning(encoder=4, how="even").chosen("encoder", 12)
    (0, 4, 7, 11)
    """

    encoder: int | tuple[int, ...] | None = None
    decoder: int | tuple[int, ...] | None = None
    how: How = "ends"

    def chosen(self, stack: str, total: int) -> tuple[int, ...]:
        """The layers of a stack that stay, in order.

        Raises:
            ConfigError: no layer, more than there are, one twice, or one that is missing.
        """
        wanted = self.encoder if stack == "encoder" else self.decoder
        if wanted is None:
            return tuple(range(total))
        if isinstance(wanted, int):
            if not 1 <= wanted <= total:
                raise ConfigError(f"{stack}: expected 1 to {total} layers, got {wanted}")
            if self.how == "ends":
                front = -(-wanted // 2)
                return (*range(front), *range(total - (wanted - front), total))
            return tuple(dict.fromkeys(round(i * (total - 1) / max(1, wanted - 1)) for i in range(wanted)))
        missing = [layer for layer in wanted if not -total <= layer < total]
        if missing or not wanted:
            raise ConfigError(
                f"{stack}: the model has layers 0 to {total - 1}; {list(wanted)} names {missing or 'none'}"
            )
        places = tuple(sorted({layer % total for layer in wanted}))
        if len(places) < len(wanted):
            raise ConfigError(f"{stack}: {list(wanted)} names a layer twice")
        return places


def prune(model: str, folder: Path, pruning: Pruning, *, revision: str | None = None) -> Mapping[str, Any]:
    """Write a model without the layers that go; what it had and has, by name. A finished folder is left as it is.

    Raises:
        ConfigError: a layer that is missing; an encoder's layers of a decoder-only model; nothing to prune.
        StoreError: the model cannot be opened, or the folder belongs to another run (or to other weights).
    """
    from lmdistill.config import settings_of

    if pruning.encoder is None and pruning.decoder is None:
        raise ConfigError("encoder, decoder: name how many layers stay in at least one of them")
    settings = {"model": model, "revision": revision, "pruning": settings_of(pruning)}
    with stage(folder, "prune", settings=settings, inputs=_digests(Path(model))) as opened:
        if not opened.done:
            opened.manifest.facts.update(_pruned(model, folder, pruning, revision))
        return dict(opened.manifest.facts)


def _digests(folder: Path) -> dict[str, str]:
    """A hash of each file of a local model that decides what it is."""
    kinds = (".safetensors", ".bin", ".json", ".model", ".txt")
    files = sorted(path for path in folder.glob("*") if path.suffix in kinds) if folder.is_dir() else []
    return {path.name: digest_file(path) for path in files if path.name != "lmdistill.json"}


def _pruned(name: str, folder: Path, pruning: Pruning, revision: str | None) -> dict[str, Any]:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        both = bool(AutoConfig.from_pretrained(name, revision=revision).is_encoder_decoder)
        kind = AutoModelForSeq2SeqLM if both else AutoModelForCausalLM
        model = kind.from_pretrained(name, revision=revision, use_safetensors=True)
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise StoreError(f"{name!r} cannot be opened: {first} A transformers folder was expected") from error
    if pruning.encoder is not None and not both:
        raise ConfigError(f"encoder: {name!r} is a decoder-only model; name its decoder's layers")
    facts: dict[str, Any] = {"parameters_before": sum(p.numel() for p in model.parameters())}
    stacks = {"encoder": model.get_encoder(), "decoder": model.get_decoder()} if both else {"decoder": model.base_model}
    for stack, module in stacks.items():
        layers = layer_list(module)
        kept = pruning.chosen(stack, len(layers))
        facts[f"{stack}_layers"] = list(kept)
        _keep(model, stack, layers, kept, both)
    facts["parameters"] = sum(p.numel() for p in model.parameters())
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return facts


def layer_list(module: Any) -> Any:
    """The list of layers of a stack: the first list of modules found from the outside in."""
    from torch import nn

    found = [(name.count("."), name, one) for name, one in module.named_modules() if isinstance(one, nn.ModuleList)]
    if not found:
        raise ConfigError(f"{type(module).__name__} keeps no list of layers that could be pruned")
    return min(found, key=lambda entry: (entry[0], -len(entry[2])))[2]


def _keep(model: Any, stack: str, layers: Any, kept: Sequence[int], both: bool) -> None:
    """Leave the kept layers in the list, and say so in the configuration."""
    first, own = layers[0], [layers[i] for i in kept]
    config, total = model.config, len(layers)
    bias = [one for one in first.modules() if getattr(one, "has_relative_attention_bias", False)]
    if bias and kept[0] != 0:  # T5 has the positions of all layers in its first one
        for module in own[0].modules():
            if type(module) is type(bias[0]) and hasattr(module, "has_relative_attention_bias"):
                module.has_relative_attention_bias = True
                module.relative_attention_bias = bias[0].relative_attention_bias
                break
    del layers[:]
    layers.extend(own)
    names = COUNTS[stack] if both else COUNTS["decoder"][2:]
    for name in names:
        if getattr(config, name, None) == total:
            setattr(config, name, len(kept))
            break
    if getattr(config, "layer_types", None) and not both:
        config.layer_types = [config.layer_types[i] for i in kept]

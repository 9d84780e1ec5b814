"""Turn a checkpoint into a folder that plain Transformers loads."""

import argparse
import os
import shutil
import tempfile
from pathlib import Path

import torch
from transformers import AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM


def build_model() -> LlamaForCausalLM:
    """Build the untrained architecture: 3.4 M parameters, eight query heads over four key-value heads."""
    config = LlamaConfig(
        vocab_size=4096,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=32,
        max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )
    return LlamaForCausalLM(config)


def export(run: Path, target: Path, averaged: bool = False) -> None:
    """Write the run's latest weights as bfloat16 safetensors with config and tokenizer.

    Args:
        run: directory of a training run.
        target: folder to fill; each file is replaced whole, others in it stay.
        averaged: take the moving average of the weights, the better choice before the rate has decayed.
    """
    state = torch.load(run / "checkpoint.pt", weights_only=False)
    weights = state["model"]
    if averaged:
        weights = {k.removeprefix("module."): v for k, v in state["average"].items() if k != "n_averaged"}
    model = build_model()
    model.load_state_dict(weights)
    model.to(torch.bfloat16)
    model.generation_config = GenerationConfig(bos_token_id=0, eos_token_id=1, pad_token_id=2)
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        model.save_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(run / "tokenizer")
        for loading in ("is_local", "local_files_only"):  # how it was read says nothing about what it is
            tokenizer.init_kwargs.pop(loading, None)
        tokenizer.save_pretrained(folder)
        for file in sorted(Path(folder).iterdir()):
            shutil.copymode(run / "checkpoint.pt", file)
            os.replace(file, target / file.name)


def main() -> None:
    """Read the command line and export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="directory given to train.py as --out")
    parser.add_argument("--target", type=Path, required=True, help="folder to fill")
    parser.add_argument("--averaged", action="store_true", help="export the moving average of the weights")
    options = parser.parse_args()
    export(options.run, options.target, options.averaged)


if __name__ == "__main__":
    main()

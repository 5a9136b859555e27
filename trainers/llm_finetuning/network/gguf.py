"""Turns a GGUF file into a folder in Hugging Face's form, once: reading GGUF takes a minute, the folder a moment."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

from trainers.interface import DataError
from trainers.llm_finetuning.network.language_model import prepare_libraries


def convert_gguf(source: Path, folder: Path) -> None:
    """Writes the model of a GGUF file, weights as float32, and its tokenizer.

    Args:
        source: the file.
        folder: which appears whole.

    Raises:
        DataError: the file cannot be read, or the package that reads it is not there.
    """
    prepare_libraries()
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".converting-"))
    try:
        where = {"pretrained_model_name_or_path": str(source.parent), "gguf_file": source.name}
        AutoTokenizer.from_pretrained(**where).save_pretrained(work)
        model = AutoModelForCausalLM.from_pretrained(**where)
        # What transformers notes of the file, and for which it refuses to save.
        for owner, name in ((model.config, "quantization_config"), (model, "hf_quantizer")):
            if hasattr(owner, name):
                delattr(owner, name)
        model.save_pretrained(work)
        os.rename(work, folder)
    except (OSError, ValueError, ImportError) as error:
        if not folder.exists():  # else another process was faster
            raise DataError(f"model.path={source}: cannot be converted ({type(error).__name__}: {error})") from None
    finally:
        shutil.rmtree(work, ignore_errors=True)

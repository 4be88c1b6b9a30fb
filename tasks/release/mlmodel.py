"""The file that makes a model folder an MLflow model: ``mlflow.transformers.load_model("models:/plumbline-policy@champion")``.

It is written by hand, byte for byte the same for the same policy; MLflow's own writer notes clocks and machines, and copies
the weights.
"""

import json
from pathlib import Path

import yaml

MLMODEL = "MLmodel"
TOKENIZER = Path("components") / "tokenizer"
"""Where MLflow looks for it."""
WEIGHTS = (".safetensors", ".safetensors.index.json")
MODEL_FILES = ("config.json", "generation_config.json", "README.md")


def write_mlmodel(folder: Path) -> None:
    """Describe the Hugging Face model in ``folder`` to MLflow; its tokenizer's files are there once more, small as they are."""
    kind = json.loads((folder / "config.json").read_text(encoding="utf-8"))["architectures"][0]
    (folder / TOKENIZER).mkdir(parents=True)
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name not in MODEL_FILES and not path.name.endswith(WEIGHTS):
            (folder / TOKENIZER / path.name).write_bytes(path.read_bytes())
    flavor = {
        "components": ["tokenizer"],
        "framework": "pt",
        "instance_type": "TextGenerationPipeline",
        "model_binary": ".",
        "pipeline_model_type": kind,
        "task": "text-generation",
        "tokenizer_type": "AutoTokenizer",
        "torch_dtype": "torch.float32",
    }
    text = yaml.safe_dump({"flavors": {"transformers": flavor}}, sort_keys=True)
    (folder / MLMODEL).write_text(text, encoding="utf-8")

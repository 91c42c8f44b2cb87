"""Make a tiny classifier from a configuration, with random weights and a tokenizer trained here, train it a little, and
save it as transformers does; prints what its pipeline says of some sentences as JSON.

Run by test_huggingface.py with the interpreter of .venv-torch.
"""

import json
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

GOOD = ["a good film", "what a great film", "the best film", "good and great"]
BAD = ["a bad film", "what an awful film", "the worst film", "bad and awful"]
SPECIAL = {f"{name}_token": f"[{name.upper()}]" for name in ("unk", "pad", "cls", "sep", "mask")}

INFERENCE = """\
def predict_fn(data, pipeline):
    return {"first": pipeline(data["inputs"])[0]["label"].upper()}
"""


def tokenizer():
    made = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.train_from_iterator(GOOD + BAD, trainers.WordLevelTrainer(special_tokens=list(SPECIAL.values())))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, **SPECIAL)


def main() -> None:
    here = Path.cwd()
    torch.manual_seed(0)
    words = tokenizer()
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    labels = {"id2label": {0: "bad", 1: "good"}, "label2id": {"bad": 0, "good": 1}}
    config = transformers.BertConfig(vocab_size=len(words), max_position_embeddings=32, **labels, **sizes)
    model = transformers.BertForSequenceClassification(config)
    batch = words(GOOD + BAD, padding=True, return_tensors="pt")
    target = torch.tensor([1] * len(GOOD) + [0] * len(BAD))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        loss = model(**batch, labels=target).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.3
    model.eval()
    for name in ("model", "code"):
        model.save_pretrained(here / name)
        words.save_pretrained(here / name)
    (here / "code" / "code").mkdir()
    (here / "code" / "code" / "inference.py").write_text(INFERENCE)
    features = transformers.BertModel(config).eval()
    features.save_pretrained(here / "features")
    words.save_pretrained(here / "features")
    pipeline = transformers.pipeline("text-classification", model=str(here / "model"), device="cpu")
    vectors = transformers.pipeline("feature-extraction", model=str(here / "features"), device="cpu")
    told = {"one": pipeline("a good film"), "two": pipeline(["a good film", "an awful film"], top_k=None)}
    print(json.dumps({**told, "features": vectors("a good film")}))


main()

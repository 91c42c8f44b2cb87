"""Train PyTorch models into folders of the working directory; prints what they predict for its rows as JSON.

Run by test_torch.py with the interpreter of .venv-torch.
"""

import json
from pathlib import Path

import torch

torch.manual_seed(0)
ROWS = torch.randn(200, 6)
CLASSES = (ROWS.sum(dim=1) > 0).long()


class Net(torch.nn.Module):
    """Two layers over rows."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = torch.nn.Linear(6, 16)
        self.drop = torch.nn.Dropout(0.5)
        self.last = torch.nn.Linear(16, 2)

    def forward(self, rows):
        return self.last(self.drop(torch.relu(self.hidden(rows))))


class Words(torch.nn.Module):
    """A bag of words: integers in, several outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(50, 8)
        self.last = torch.nn.Linear(8, 3)

    def forward(self, ids):
        mean = self.embedding(ids).mean(dim=1)
        return self.last(mean), mean


def train(model, inputs, target, steps=60):
    """A few steps of Adam; the loss must fall."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    losses = []
    for _ in range(steps):
        found = model(inputs)
        loss = torch.nn.functional.cross_entropy(found[0] if isinstance(found, tuple) else found, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] * 0.8
    return model.eval()


INFERENCE = """\
import os

import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = torch.nn.Linear(6, 16)
        self.drop = torch.nn.Dropout(0.5)
        self.last = torch.nn.Linear(16, 2)

    def forward(self, rows):
        return self.last(self.drop(torch.relu(self.hidden(rows))))


def model_fn(model_dir):
    net = Net()
    net.load_state_dict(torch.load(os.path.join(model_dir, "model.pth"), weights_only=True))
    return net
"""


def main() -> None:
    here = Path.cwd()
    for name in ("script", "export", "code", "words", "weights"):
        (here / name).mkdir()
    net = train(Net(), ROWS, CLASSES)
    torch.jit.script(net).save(here / "script" / "model.pt")
    dynamic = ({0: torch.export.Dim.DYNAMIC},)
    torch.export.save(torch.export.export(net, (ROWS[:3],), dynamic_shapes=dynamic), here / "export" / "model.pt2")
    (here / "code" / "code").mkdir()
    (here / "code" / "code" / "inference.py").write_text(INFERENCE)
    for name in ("code", "weights"):
        torch.save(net.state_dict(), here / name / "model.pth")
    ids = torch.randint(0, 50, (200, 5))
    words = train(Words(), ids, ids[:, 0] % 3)
    shapes = ({0: torch.export.Dim.DYNAMIC},)
    torch.export.save(torch.export.export(words, (ids[:3],), dynamic_shapes=shapes), here / "words" / "model.pt2")
    with torch.inference_mode():
        told = {"rows": ROWS[:20].tolist(), "logits": net(ROWS[:20]).tolist(), "ids": ids[:4].tolist()}
        scores, mean = words(ids[:4])
    print(json.dumps({**told, "scores": scores.tolist(), "mean": mean.tolist()}))


main()

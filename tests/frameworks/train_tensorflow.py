"""Train a Keras model and save it as TensorFlow Serving wants it; prints what it predicts for its rows as JSON.

Run by test_tensorflow.py with the interpreter of .venv-tensorflow.
"""

import json
from pathlib import Path

import numpy as np
import tensorflow as tf

ROWS = np.random.default_rng(0).normal(size=(300, 6)).astype("float32")
CLASSES = (ROWS.sum(axis=1) > 0).astype("int32")


class Counter(tf.Module):
    """Text and numbers in, three outputs, and a second signature."""

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string, name="text"),
            tf.TensorSpec([None, 3], tf.int64, name="ids"),
        ]
    )
    def count(self, text, ids):
        return {"length": tf.strings.length(text), "total": tf.reduce_sum(ids, 1), "echo": text}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def double(self, x):
        return {"twice": 2 * x}


def main() -> None:
    here = Path.cwd()
    model = tf.keras.Sequential([tf.keras.Input((6,)), tf.keras.layers.Dense(8, "relu"), tf.keras.layers.Dense(2)])
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf.keras.optimizers.Adam(0.05), loss)
    losses = model.fit(ROWS, CLASSES, epochs=8, verbose=0).history["loss"]
    assert losses[-1] < losses[0] * 0.8
    model.export(here / "rows" / "export" / "Servo" / "2", verbose=False)
    (here / "rows" / "export" / "Servo" / "1").mkdir()
    (here / "rows" / "export" / "Servo" / "1" / "saved_model.pb").write_bytes(b"older, and broken")
    counter = Counter()
    signatures = {"serving_default": counter.count, "double": counter.double}
    tf.saved_model.save(counter, here / "named" / "1", signatures=signatures)
    (here / "keras").mkdir()
    model.save(here / "keras" / "model.keras")
    print(json.dumps({"rows": ROWS[:20].tolist(), "logits": model(ROWS[:20]).numpy().tolist()}))


main()

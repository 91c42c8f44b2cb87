"""`python -m eyrie.modelserver.compile.beside`: compiles the model of a server that serves it meanwhile; see `at_load`.

Reads `{"ml", "image", "folder"}` as JSON from standard input and leaves `compiled/` in the folder, whole.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

from eyrie.modelserver.frameworks.interface import RowModel, Source
from eyrie.modelserver.threads import start_single

# What is written of a prediction, not what is predicted.
ANSWERS = ("SAGEMAKER_INFERENCE_OUTPUT", "SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT")


def main() -> int:
    """Compile; the exit code."""
    start_single()  # before the numeric libraries are imported
    from eyrie.modelserver import environment, loader
    from eyrie.modelserver.compile import manifest as manifests
    from eyrie.modelserver.compile.compiler import compile_model

    given = json.load(sys.stdin)
    env = {name: value for name, value in os.environ.items() if name not in ANSWERS}
    source = Source(Path(given["ml"]), {**env, environment.COMPILE: "0"}, given["image"])
    environment.extend_path(loader.code_paths(source, None))
    model = loader.load_files(source)
    if not isinstance(model, RowModel):
        print(f"{model.title}: only models of rows are compiled", file=sys.stderr)
        return 1
    folder = Path(given["folder"])
    work = folder / ".work"
    shutil.rmtree(work, ignore_errors=True)
    compile_model(model, source.model_dir).write(work)
    shutil.rmtree(folder / manifests.FOLDER, ignore_errors=True)
    (work / manifests.FOLDER).rename(folder / manifests.FOLDER)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""A model package within Spark: where its files are, in a process that ends without a word."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from eyrie import spark
from eyrie.modelserver import inside


def test_its_files_are_in_a_folder_that_spark_removes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [tmp_path / "blockmgr-1", tmp_path / "blockmgr-2"]
    for folder in folders:
        folder.mkdir()
    monkeypatch.setenv("SPARK_LOCAL_DIRS", ",".join(map(str, folders)))
    monkeypatch.setattr(inside, "InsideModel", lambda folder, environment, image: loaded.append(folder))
    loaded: list[Path] = []
    (tmp_path / "inference.py").touch()
    with tarfile.open(tmp_path / "p.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "inference.py", "code/inference.py")
    spark.package(str(tmp_path / "p.tar.gz"), image="eyrie/python").opened()
    assert (loaded[0] / "model/code/inference.py").exists()
    assert loaded[0].parent == folders[0]
    assert list(folders[1].iterdir()) == []

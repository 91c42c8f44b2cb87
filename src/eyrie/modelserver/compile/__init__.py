"""Compilation: a model as an ONNX graph that answers like the original, checked against it and measured beside it.

`compiler` is the way through: `convert` -> `rows` -> `compare` -> `timing` -> `report`; `serving` runs what came out.
Needs the extra `onnx`; nothing here is imported by a model server that serves no compiled model.
"""

"""Floor 4, the model server: what runs inside an instance. It imports only `domain`, `http1` and its own extras."""

"""Floor 3, the tongue: AWS protocols from botocore's models, where a request is for, and whose it is.

`dispatch`, `auth`, `chunked`, `messages` and `errors` are light and never import botocore: gateway workers use them.
`Wire` in `eyrie.wire.codec` reads and writes whole calls and belongs to the processes that answer the APIs.
"""

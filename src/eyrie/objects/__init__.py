"""Floor 4, the S3 API over blobs: buckets and objects with an index of their own in front of opaque bytes.

`app` serves it; `router` takes one request, `call` says whose it is and what it names, an `api_*` module answers it,
`store` keeps bytes and index together.
"""

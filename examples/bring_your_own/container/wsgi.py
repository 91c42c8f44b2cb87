"""What gunicorn imports: `gunicorn wsgi:app`."""

from predictor import app

__all__ = ["app"]

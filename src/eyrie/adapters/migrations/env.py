"""Where alembic enters: runs migrations on the connection that `store_sql.migrate` hands over, in its transaction."""

from __future__ import annotations

from alembic import context


def run() -> None:
    """Migrate within the caller's transaction."""
    context.configure(connection=context.config.attributes["connection"], transactional_ddl=True)
    with context.begin_transaction():
        context.run_migrations()


run()

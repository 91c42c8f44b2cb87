"""Schema migrations of the store, run by alembic at start (`adapters/store_sql.migrate`)."""

"""One migration a module, each naming the one before it; `store_sql.HEAD` names the newest."""

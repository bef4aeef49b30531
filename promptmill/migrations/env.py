"""Alembic's entry: runs the revisions on the connection that the store hands over."""

from alembic import context

from promptmill import tables

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=tables.metadata,
    transactional_ddl=True,
)
context.run_migrations()

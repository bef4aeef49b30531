"""Every SQL statement of the tree. Each function is one transaction on a `Database`;
tables are seen nowhere else. Truth lives here: Redis can be rebuilt from it."""

"""The PostgreSQL store: the only package that uses the database driver.

One module per entity, with its SQL. Every statement names the application it works for, and every primary, unique and
foreign key starts with it, so the tables can be sharded by application without a rewrite (``application`` and
``credential`` are small and would be replicated). A transaction is one statement or a list of statements: nothing can
be awaited inside it. Parameters named ``app``, ``user``, ``agent`` and ``conversation`` of type int are ids.
"""

"""The PostgreSQL store: the only package that uses the database driver.

One module per entity, with its SQL. Every primary, unique and foreign key starts with the application, and every
statement of a use case names it for each table, so that one machine can execute it if the tables are distributed by
application (``tests/house/test_sql.py`` has the rules and the exceptions). A transaction is one statement or a list of
statements: nothing can be awaited inside it. Parameters named ``app``, ``user``, ``agent`` and ``conversation`` of type
int are ids.
"""

"""PostgreSQL: the one store. Only this room knows the driver.

One file per noun, its SQL beside it. Every statement names the application it works for, and every primary, unique
and foreign key begins with it, so that the tables can be spread over machines by application without a rewrite
(``application`` and ``credential`` are small and are then copied everywhere). A transaction is one statement, or a
list of statements: nothing can be awaited inside it.
"""

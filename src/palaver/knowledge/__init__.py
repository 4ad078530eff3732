"""Documents in, passages out: read, split, index, search.

Knows files, Markdown, HTML and words, in Chinese and English alike; does not know how or where anything is stored
(``shelf.Shelf`` says what it needs of a store), nor models, tools, HTTP or vendors. What a document says and which
words find it is decided here, never by the database's language settings, so every PostgreSQL finds the same.
"""

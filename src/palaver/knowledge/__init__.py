"""Documents in, passages out: read, split, index, search.

Handles files, Markdown, HTML and words, in Chinese and English. Independent of storage
(``repository.KnowledgeRepository`` is the interface it needs), models, tools, HTTP and vendors. Parsing and
tokenization happen here, never by the database's language settings, so every PostgreSQL returns the same results.
"""

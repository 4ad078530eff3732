"""HTTP: routes a request to its dialect, admits it, writes the response or follows the run.

Knows ASGI and the contract of ``wire``. Does not know any vendor's words, what a response means, or how anything is
stored.
"""

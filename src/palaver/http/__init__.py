"""HTTP: routes a request to its dialect, admits it, writes the answer or follows the run.

Knows ASGI and the contract of ``wire``. Does not know any vendor's words, what an answer means, or how anything is
stored.
"""

"""The command ``palaver``, and ``python -m palaver``.

Imports allocate some hundred thousand objects, none of which is garbage. Scanning them takes a seventh of a short
command's time, so garbage collection is off during imports and ignores these objects afterwards.
"""

import gc

gc.disable()

from palaver.cli import main  # noqa: E402

gc.freeze()
gc.enable()

if __name__ == "__main__":
    main()

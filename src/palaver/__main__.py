"""The command ``palaver``, and ``python -m palaver``.

Importing makes some hundred thousand objects, none of which is garbage. Looking for some among them meanwhile takes a
seventh of a short command's time, and again and again of a server's; they are set aside for good.
"""

import gc

gc.disable()

from palaver.cli import main  # noqa: E402

gc.freeze()
gc.enable()

if __name__ == "__main__":
    main()

"""``python -m gsd``, for launchers that want a module."""

from gsd.main import main

main()

"""What holds for all tests."""

import contextlib
import os
import signal
from pathlib import Path

from langchain_mixture import Step

# Every server here speaks plain HTTP. To load the machine's certificates for each new
# client would cost 40 ms, so the clients are shown a folder without any.
os.environ.pop("SSL_CERT_FILE", None)
os.environ["SSL_CERT_DIR"] = str(Path(__file__).parent)


# A shell that starts tests in the background has them ignore Ctrl-C, and all programs
# that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    with contextlib.suppress(ValueError):  # not on the main thread
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name a case by what is special in it, such as `not asynchronous`."""
    if isinstance(val, bool):
        return argname if val else f"not {argname}"
    if not isinstance(val, list | tuple | dict | Step | BaseException | None):
        return None
    text = _shown(val)
    # Every worker must give a case the same name, so none may have an address in it.
    return None if " at 0x" in text else f"{argname}={text}"[:60]


def _shown(val: object) -> str:
    if isinstance(val, list):
        return f"[{', '.join(_shown(item) for item in val)}]"
    if isinstance(val, Step):
        given = [
            f"{name}={_shown(value)}"
            for name, value in vars(val).items()
            if value != getattr(type(val), name, ...)
        ]
        return f"{type(val).__name__}({', '.join(given)})"
    return ascii(val)

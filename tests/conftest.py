"""What holds for all tests."""

import os
from pathlib import Path

# Every server here speaks plain HTTP. To load the machine's certificates for each new
# client would cost 40 ms, so the clients are shown a folder without any.
os.environ.pop("SSL_CERT_FILE", None)
os.environ["SSL_CERT_DIR"] = str(Path(__file__).parent)

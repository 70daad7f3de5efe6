"""Make docs/images/report.png: the page of a real run, as a browser shows it.

    .venv/bin/python benchmarks/picture.py   # needs `make demo` once, and Chromium

The model is the demo's, on this machine: nine samples label a review, and are counted.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from shutil import which

from langchain_mixture import ChatMixture, Majority, Propose, Recording

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "examples"))
from demo import ASKED, SCHEMA, local  # noqa: E402  # as below
from local_model import local_model  # noqa: E402  # it stands in the folder above

REVIEW = "The taxi never came and we missed our flight."
PICTURE = ROOT / "docs" / "images" / "report.png"


def main() -> None:
    recording = Recording()
    with local_model() as url, tempfile.TemporaryDirectory() as folder:
        bound = {"response_format": SCHEMA}
        model = local(url, temperature=1, max_tokens=16, extra_body=bound)
        mixture = ChatMixture([Propose([model] * 9), Majority()])
        mixture.invoke(ASKED + REVIEW, config={"callbacks": [recording]})
        page = Path(folder) / "run.html"
        recording.html(page)
        PICTURE.parent.mkdir(exist_ok=True)
        subprocess.run(
            [
                which("chromium") or "chromium",
                *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
                *("--window-size=1000,1000", f"--screenshot={PICTURE}", page.as_uri()),
            ],
            check=True,
            timeout=120,
            stderr=subprocess.DEVNULL,
        )


if __name__ == "__main__":
    main()

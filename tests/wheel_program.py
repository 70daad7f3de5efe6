"""Try a built wheel as its users install it: without extras, with each, with all.

    python tests/wheel_program.py .venv-uv/bin/uv dist/langchain_mixture-*.whl

In an empty environment each time, the wheel answers a question; with all its extras,
every module of it can be imported, too. The extras are read from the wheel.
"""

import subprocess
import sys
import tempfile
from email.parser import HeaderParser
from pathlib import Path
from zipfile import ZipFile

ANSWERS = """
import sys
from langchain_mixture import *
import langchain_mixture

assert "site-packages" in langchain_mixture.__file__, langchain_mixture.__file__

def client(model, messages, temp, max_tokens):
    return f"{model} answers", 1, 2

graph = create_mixture([Propose(["a", "b"]), Aggregate("c")], client=client)
state = graph.invoke({"messages": [("user", "Why?")]})
assert state["messages"][-1].text == "c answers"
assert ChatMixture([Propose(["a"])], client=client).invoke("Why?").text == "a answers"
"""

IMPORTS = """
import importlib, pkgutil
import langchain_mixture

for module in pkgutil.walk_packages(langchain_mixture.__path__, "langchain_mixture."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""


def extras(wheel: Path) -> list[str]:
    """Read the names of the extras from a wheel."""
    with ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = HeaderParser().parsestr(archive.read(name).decode())
    return metadata.get_all("Provides-Extra") or []


def try_out(uv: str, requirement: str, program: str) -> None:
    """Run a program in an empty environment with nothing but a requirement."""
    with tempfile.TemporaryDirectory() as folder:
        python = f"{folder}/bin/python"
        subprocess.run(
            [uv, "--quiet", "venv", "--python", sys.executable, folder], check=True
        )
        install = ["pip", "install", "--python", python, requirement]
        subprocess.run([uv, "--quiet", *install], check=True)
        subprocess.run([uv, "--quiet", "pip", "check", "--python", python], check=True)
        subprocess.run(
            [python, "-I", "-W", "error", "-c", program], check=True, cwd=folder
        )


def main(uv: str, wheel: Path) -> None:
    """Try a wheel with none, with each and with all of its extras."""
    names = extras(wheel)
    for some in ([], *([name] for name in names), names):
        chosen = f"[{','.join(some)}]" if some else ""
        program = ANSWERS + IMPORTS if some == names else ANSWERS
        try_out(uv, f"{wheel.resolve()}{chosen}", program)
        print(f"{wheel.name}{chosen} imports and answers")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))

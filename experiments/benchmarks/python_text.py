"""Real text without a download: what comes with Python."""

import sysconfig
from collections import Counter
from itertools import chain
from pathlib import Path

from nejax.pipeline.corpus.documents import Document
from nejax.pipeline.corpus.python_docs import read_python_docs


def python_installation(n_characters: int) -> list[Document]:
    """Documentation, then sources, of the Python installation: at least so many characters, or all 27 million."""
    root = Path(sysconfig.get_path("stdlib"))
    files = (file for pattern in ("*.py", "[a-z]*/*.py") for file in sorted(root.glob(pattern)))
    sources = ((str(file.relative_to(root)), file.read_text(errors="replace")) for file in files)
    found, n = [], 0
    for name, text in chain(read_python_docs(Counter()), sources):
        found.append(Document(name, text))
        n += len(text)
        if n >= n_characters:
            break
    return found

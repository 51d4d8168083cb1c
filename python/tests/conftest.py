import importlib.util
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
# Where the package is not installed, the folder beside this one is taken: the recorder needs nothing that is compiled.
if importlib.util.find_spec("radialsim") is None:
    sys.path.insert(0, str(Path(__file__).parent.parent))

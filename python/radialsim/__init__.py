"""radialsim for Python: records which layers each token of a language model takes, for `radialsim simulate` to price.

>>> with radialsim.record(model, "out.jsonl"):            # doctest: +SKIP
...     model.generate(**inputs, max_new_tokens=64)
"""

from .errors import RecordError, TraceError
from .recorder import Recorder, record

__all__ = ["RecordError", "Recorder", "TraceError", "record"]
__version__ = "0.1.0"

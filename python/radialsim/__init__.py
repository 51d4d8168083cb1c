"""radialsim for Python: what a token's route through the layers of a model costs, and a recorder of such routes.

>>> import radialsim
>>> results = radialsim.simulate("examples/smollm2-skip25-h100.ron")
>>> results["recorded, aligned"]["work.mean_depth"] < results["dense"]["work.mean_depth"]
True
>>> with radialsim.record(model, "out.jsonl"):            # doctest: +SKIP
...     model.generate(**inputs, max_new_tokens=64)
"""

from .errors import InputError, RecordError, TraceError
from .recorder import Recorder, record
from .results import Results, Rows, Variant
from .scenario import Scenario
from .simulator import Fitted, fit, predict, simulate, sweep
from .trace import Trace

__all__ = [
    "Fitted",
    "InputError",
    "RecordError",
    "Recorder",
    "Results",
    "Rows",
    "Scenario",
    "Trace",
    "TraceError",
    "Variant",
    "fit",
    "predict",
    "record",
    "simulate",
    "sweep",
]
__version__ = "0.1.0"

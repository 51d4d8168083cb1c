"""Recording a serving engine: what vLLM runs, step by step, and the times of its requests.

`plugin.py` is loaded by vLLM and writes files into a folder; `collect.py` makes a trace and a measured run of them.
"""

from .collect import Collected, collect

__all__ = ["Collected", "collect"]

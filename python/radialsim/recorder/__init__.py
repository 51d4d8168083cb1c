"""The recorder: hooks on a running model, and what they see as a router trace."""

from .recorder import Recorder, record

__all__ = ["Recorder", "record"]

"""Logs: one line a record on standard error, as text (time, level, logger, message) or as JSON. A traceback follows its line, or
is a field."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import TextIO

import msgspec


class TextLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC)
        message = record.getMessage().replace("\n", "\\n")
        where = record.name.removeprefix("podwire.")
        line = f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03}Z {record.levelname.lower():7} {where}: {message}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JSONLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": f"{datetime.fromtimestamp(record.created, UTC):%Y-%m-%dT%H:%M:%S.%fZ}",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def configure(level: str = "info", form: str = "text", stream: TextIO | None = None) -> logging.Logger:
    """Send all records to ``stream`` (standard error) and give the logger ``podwire``. Replaces what was configured before."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JSONLine() if form == "json" else TextLine())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    log = logging.getLogger("podwire")
    log.setLevel(level.upper())
    return log

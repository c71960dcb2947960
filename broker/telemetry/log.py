"""The log: a structlog processor chain that ends in one line, JSON or pretty; redaction.py decides its content.

Records of the standard library, warnings and crashes go through the same chain to the same stream. Logging never
raises into the code that logs. The lines are not buffered: a stream that is not read blocks the writer.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import sys
import threading
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal, TextIO

import structlog

from broker.telemetry.redaction import Line, fill_event, frames, only_allowed, plain, scrub_line

# Loggers of libraries that log too much, or log values they were given (SQL with its parameters).
QUIET = ("aio_pika", "aiormq", "aiohttp", "alembic", "asyncio", "asyncpg", "sqlalchemy")

LEVELS = {
    level: logging.getLevelNamesMapping()[level.upper()] for level in ("debug", "info", "warning", "error")
}

# JSON allows these characters inside a string, but readers of the log may take them for the end of a line.
_LINE_ENDS = {code: f"\\u{code:04x}" for code in (0x85, 0x2028, 0x2029)}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


class Output:
    """What structlog calls the logger: it has a name and writes finished lines to this process's sink."""

    __slots__ = ("name",)

    def __init__(self, name: str = "broker") -> None:
        self.name = name

    def write(self, text: str) -> None:
        """One line. Never raises: a line that cannot be written is lost."""
        with contextlib.suppress(Exception):
            _state.sink.write(text)


class Sink:
    """Stream and format of the lines. Without a stream: standard error at the moment of writing."""

    def __init__(self, stream: TextIO | None, *, pretty: bool) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self.render = _pretty if pretty else _json

    def write(self, text: str) -> None:
        stream = self._stream or sys.stderr
        with self._lock:
            stream.write(text + "\n")
            stream.flush()


class _State:
    """Sink and level of this process; `configure` replaces them."""

    def __init__(self) -> None:
        self.sink = Sink(None, pretty=False)
        self.level = logging.INFO


# -- the chain ---------------------------------------------------------------------------------------------------
# structlog's own merge_contextvars, TimeStamper and JSONRenderer give another order of keys and another format.


def add_contextvars(_logger: Output, _level: str, line: Line) -> Line:
    """structlog's context variables come before the bound facts, which win."""
    return structlog.contextvars.get_contextvars() | dict(line)


def add_head(logger: Output, level: str, line: Line) -> Line:
    """Timestamp, level, event and logger come first; a fact of the same name does not replace them."""
    stamp = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    head = {"timestamp": stamp, "level": level, "event": line.get("event"), "logger": logger.name}
    return {**head, **line, **head}


def add_exception(_logger: Output, _level: str, line: Line) -> Line:
    """The exception in `exc_info` as types and places, without texts and local variables."""
    if (error := _error_of(line.pop("exc_info", None))) is not None:
        line["exception"] = frames(error)
    return line


def render(_logger: Output, _level: str, line: Line) -> str:
    """The line as text, in the format of the sink."""
    return _state.sink.render(line)


# The scrub stands after the renderer: only the finished text has everything that will be written, including the names
# of loggers and of exception types.
LINE: list[Any] = [fill_event, only_allowed, add_head, add_exception, render, scrub_line]
CHAIN = [add_contextvars, *LINE]


class Logger(structlog.BoundLoggerBase):
    """The type that `get_logger` returns. An event is a constant text; its facts have keys of ALLOWED."""

    _logger: Output

    def debug(self, event: Any, *args: Any, **facts: Any) -> None:
        """Details for developers."""
        self._log("debug", event, args, facts)

    def info(self, event: Any, *args: Any, **facts: Any) -> None:
        """Normal operation; one line for each message."""
        self._log("info", event, args, facts)

    def warning(self, event: Any, *args: Any, **facts: Any) -> None:
        """Something is wrong, and the broker copes with it."""
        self._log("warning", event, args, facts)

    def error(self, event: Any, *args: Any, **facts: Any) -> None:
        """Something is wrong that a person should look at."""
        self._log("error", event, args, facts)

    def exception(self, event: Any, *args: Any, **facts: Any) -> None:
        """As `error`, with the exception that is being handled."""
        self._log("error", event, args, {"exc_info": True, **facts})

    def _log(self, level: str, event: Any, args: Any, facts: dict[str, Any]) -> None:
        if LEVELS[level] >= _state.level:
            self.emit(level, event, args, facts)

    def emit(self, level: str, event: Any, args: Any, facts: dict[str, Any]) -> None:
        """Send one event through the chain, whatever the level. Never raises."""
        try:
            if args:
                facts["positional_args"] = args
            (text,), _ = self._process_event(level, event, facts)
        except Exception as error:
            lost = Logger(self._logger, LINE, {})  # a value in the context may be what fails
            with contextlib.suppress(Exception):
                (text,), _ = lost._process_event("error", "line-lost", {"error": error})
                self._logger.write(text)
        else:
            self._logger.write(text)


def _error_of(exc_info: Any) -> BaseException | None:
    if isinstance(exc_info, BaseException):
        return exc_info
    if isinstance(exc_info, tuple):
        return exc_info[1] if len(exc_info) == 3 else None
    return sys.exc_info()[1] if exc_info else None


def _json(line: Line) -> str:
    # ensure_ascii would write the digits of other scripts as escapes, and the scrub would not see them.
    text = json.dumps(line, ensure_ascii=False, separators=(",", ":"), default=plain)
    return text if text.isascii() else text.translate(_LINE_ENDS)


def _pretty(line: Line) -> str:
    head = f"{line.pop('timestamp')[11:-1]} {line.pop('level'):<8} {_flat(line.pop('event')):<28}"
    exception = line.pop("exception", ())
    line["logger"] = line.pop("logger")
    facts = " ".join(f"{key}={_flat(value)}" for key, value in line.items())
    return "\n    ".join((f"{head} {facts}", *(_flat(frame) for frame in exception)))


def _flat(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return _CONTROL.sub(" ", text)


# -- set-up ------------------------------------------------------------------------------------------------------

_state = _State()

# At import: without `configure` structlog's own defaults would print everything they are given.
structlog.configure(
    processors=CHAIN, wrapper_class=Logger, logger_factory=Output, cache_logger_on_first_use=True
)


def get_logger(name: str) -> Logger:
    """The logger of one module. `bind` returns one with facts in it."""
    logger: Logger = structlog.get_logger(name)
    return logger


def configure(
    format: Literal["auto", "json", "pretty"] = "auto", level: str = "info", stream: TextIO | None = None
) -> None:
    """Set format and level of this process's log, for structlog, the standard library, warnings and crashes."""
    at_terminal = (stream or sys.stderr).isatty()
    _state.sink = Sink(stream, pretty=format == "pretty" or (format == "auto" and at_terminal))
    _state.level = logging.getLevelNamesMapping()[level.upper()]
    root = logging.getLogger()
    root.handlers[:] = [_FromStandardLibrary()]
    root.setLevel(_state.level)
    # OpenTelemetry logs a line for each lost span; span_export.py logs at most one a minute.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL + 1)
    for name in QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, _state.level))
    logging.captureWarnings(True)
    _log_crashes()


class _FromStandardLibrary(logging.Handler):
    """Sends records of the standard library's loggers through the chain, with the first line of their text only."""

    def emit(self, record: logging.LogRecord) -> None:
        msg = record.msg.split("\n", 1)[0] if isinstance(record.msg, str) and not record.args else record.msg
        logger = Logger(Output(record.name), LINE, {})
        logger.emit(record.levelname.lower(), msg, record.args, {"exc_info": record.exc_info})


def _log_crashes() -> None:
    sys.excepthook = _crashed
    threading.excepthook = lambda hook: _log_crash("thread-crashed", hook.exc_value)
    sys.unraisablehook = lambda hook: _log_crash("ignored-exception", hook.exc_value)
    with contextlib.suppress(RuntimeError):
        watch(asyncio.get_running_loop())


def watch(loop: asyncio.AbstractEventLoop) -> None:
    """Log the unhandled exceptions of `loop`'s tasks and callbacks, without the contents that asyncio would print."""
    loop.set_exception_handler(_loop_error)


def _loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    message = str(context.get("message", "")).split("\n", 1)[0]
    _log_crash("loop-error", context.get("exception"), what=message)


def _crashed(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    _log_crash("crashed", error.with_traceback(trace), level="critical")


def _log_crash(event: str, error: BaseException | None, *, level: str = "error", **facts: Any) -> None:
    Logger(Output(), LINE, {}).emit(level, event, (), {"exc_info": error, **facts})

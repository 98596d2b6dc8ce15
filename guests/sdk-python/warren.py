"""The SDK for workers in Python.

    import warren
    from warren import Reject, forward

    @warren.worker(type="GREETER", summary="Greets by name")
    def handle(job):
        name = job.json({"name": str})["name"]
        if not name:
            raise Reject("there is nobody to greet")
        return forward({"text": f"Hello, {name}!"})

Import everything at the top of a module: the imports run when the plugin is built, and there is no file
system to import from when a job runs. asyncio and threads do not work; the host suspends the worker while
it waits, and others run meanwhile.
"""

from __future__ import annotations

import json as _json
import time as _time
from contextlib import contextmanager as _contextmanager
from datetime import date as _date, datetime as _datetime, timezone as _timezone
from decimal import Decimal as _Decimal
from typing import Any, Callable, Iterator, Mapping, Sequence
from uuid import UUID as _UUID

from componentize_py_types import Err as _Err
from wit_world.exports import descriptor as _descriptor
from wit_world.imports import (
    atomics as _atomics,
    batch as _batch,
    bus as _bus,
    context as _context,
    logging as _logging,
    metrics as _metrics,
    sql as _sql,
    types as _types,
    wasi_config_store as _config,
    wasi_keyvalue_store as _store,
)

JSON = "application/json"

# ---- Errors: each knows whether the host is to run the job again. ----


class WorkerError(Exception):
    """Why a run failed. One that a worker does not catch is how the run ends:

    =============  ==========================================================  ==========================
    from           retried                                                     rejected
    =============  ==========================================================  ==========================
    ``bus.call``   no-live-worker, queue-full, timeout, unavailable, other     invalid, denied,
                                                                               unknown-type, failed
    ``bus.send``   other                                                       invalid, payload, too-many,
                                                                               denied
    ``sql``        conflict, unavailable, other                                invalid, constraint,
                                                                               too-large, denied
    ``keyvalue``   other                                                       no-such-store,
                                                                               access-denied, ``invalid:``
    ``config``     cannot be read now                                          a value of another kind
    ``job.json``                                                               data of another shape
    =============  ==========================================================  ==========================

    A call that timed out may have taken effect: catch it where asking again does harm.
    """

    #: The case of the contract, such as ``"timeout"``. Treat the set as open.
    code = "other"
    #: Whether the host will run the job again.
    is_retryable = False
    #: When, at the earliest, in seconds from now; the host's backoff where it is None.
    after: float | None = None


class Reject(WorkerError):
    """The job can never succeed: the host dead-letters it and tells the caller the reason."""

    code = "reject"


class Retry(WorkerError):
    """The failure may go away by itself: the host runs the job again, up to the worker's attempts."""

    code = "retry"
    is_retryable = True

    def __init__(self, reason: str, after: float | None = None):
        super().__init__(reason)
        self.after = after


class _HostError(WorkerError):
    """What the host refuses. ``text`` is its own."""

    _rejected: tuple[str, ...] = ()

    def __init__(self, code: str, text: str = ""):
        super().__init__(self._told(code, text))
        self.code = code
        self.text = text
        self.is_retryable = code not in self._rejected

    @staticmethod
    def _told(code: str, text: str) -> str:
        return text


class CallError(_HostError):
    """Why a call has no reply."""

    _rejected = ("invalid", "denied", "unknown-type", "failed")

    @staticmethod
    def _told(code: str, text: str) -> str:
        prefixes = {
            "invalid": "the call is not valid: ",
            "denied": "the call is not allowed: ",
            "other": "the call failed: ",
        }
        return prefixes.get(code, "") + text


class SendError(_HostError):
    """Why a job cannot be sent."""

    _rejected = ("invalid", "payload", "too-many", "denied")

    @staticmethod
    def _told(code: str, text: str) -> str:
        return f"the job {'could not' if code == 'other' else 'cannot'} be sent: {text}"


class SqlError(_HostError):
    """Why a statement failed."""

    _rejected = ("invalid", "constraint", "too-large", "denied")

    @staticmethod
    def _told(code: str, text: str) -> str:
        meanings = {
            "invalid": "invalid statement",
            "constraint": "constraint violated",
            "conflict": "transaction conflict",
            "too-large": "result too large",
            "unavailable": "database unavailable",
            "denied": "not allowed",
        }
        return f"{meanings.get(code, 'database error')}: {text}"


class KeyValueError(_HostError):
    """Why the key-value store refused."""

    _rejected = ("no-such-store", "access-denied")

    def __init__(self, code: str, text: str = ""):
        super().__init__(code, text)
        if text.startswith("invalid:"):
            self.is_retryable = False

    @staticmethod
    def _told(code: str, text: str) -> str:
        known = {
            "no-such-store": "there is no bucket of this name",
            "access-denied": "the operator gives this worker no keys and values (`keyvalue`)",
        }
        return known.get(code, f"key-value store: {text}")


class ConfigError(_HostError):
    """Why the configuration cannot be read."""

    @staticmethod
    def _told(code: str, text: str) -> str:
        return f"configuration unavailable: {text}"


def _code(case: object) -> str:
    """``CallError_NoLiveWorker`` is ``no-live-worker``."""
    name = type(case).__name__.rpartition("_")[2]
    return "".join(f"-{c.lower()}" if c.isupper() else c for c in name).lstrip("-")


def _ask(kind: type[_HostError], function: Callable, *arguments):
    """Calls the host, and turns what it refuses into an error of this kind.

    The `Err` that componentize-py raises is frozen: Python cannot write its traceback, so it goes no
    further than here.
    """
    try:
        return function(*arguments)
    except _Err as error:
        refused = error.value
    raise kind(_code(refused), getattr(refused, "value", ""))


# ---- Payloads ----


class Payload:
    """A value and the encoding it is written in."""

    def __init__(self, content_type: str, body: bytes):
        self.content_type = content_type
        self.body = body

    @classmethod
    def of(cls, value: Any) -> Payload:
        """A value as JSON; a `Payload` stays as it is."""
        if isinstance(value, Payload):
            return value
        try:
            text = _json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
            return cls(JSON, text.encode())
        except (TypeError, ValueError) as error:
            raise Reject(f"this cannot be written as JSON: {error}") from None

    def json(self, shape: Mapping[str, type] | None = None) -> Any:
        """Reads it as JSON. With a shape, an object that lacks a field, or has one of another type, is
        rejected: ``job.json({"name": str, "items": list})``. So is what is not JSON. A ``float`` may be
        written without a fraction."""
        if self.content_type != JSON:
            raise Reject(f"the data is {self.content_type}, not {JSON}")
        try:
            value = _json.loads(self.body)
        except ValueError as error:
            raise Reject(f"unexpected data: {error}") from None
        if shape is not None:
            _check(value, shape)
        return value


def _check(value: Any, shape: Mapping[str, type]) -> None:
    if not isinstance(value, dict):
        raise Reject(f"unexpected data: {type(value).__name__}, not an object")
    for field, kind in shape.items():
        if field not in value:
            raise Reject(f"unexpected data: `{field}` is missing, not {kind.__name__}")
        found = value[field]
        fits = isinstance(found, (int, float) if kind is float else kind)
        if not fits or (isinstance(found, bool) and kind is not bool):
            raise Reject(f"unexpected data: `{field}` is {type(found).__name__}, not {kind.__name__}")


def _raw(payload: Payload) -> _types.Payload:
    return _types.Payload(content_type=payload.content_type, body=payload.body)


def _slip(stops: str | Sequence[str], data: Any) -> _types.Slip:
    stops = [stops] if isinstance(stops, str) else [str(stop) for stop in stops]
    return _types.Slip(stops=stops, data=_raw(Payload.of(data)))


# ---- The worker itself ----


class Job:
    """One unit of work."""

    def __init__(self, raw: _types.Job):
        #: Stable over retries and redeliveries: the key for making an effect idempotent.
        self.id = raw.id
        #: The id of the worker that sent the job: a stop that reaches it.
        self.sender = raw.sender
        #: The job's way, from the first stop to the last.
        self.route = raw.route
        #: The index in `route` of the stop that is running now.
        self.position = raw.position
        #: What the job is about.
        self.data = Payload(raw.data.content_type, raw.data.body)

    def json(self, shape: Mapping[str, type] | None = None) -> Any:
        """Reads `data` as JSON; see `Payload.json`."""
        return self.data.json(shape)


class JobError:
    """A job of this worker's that was given up."""

    def __init__(self, raw):
        self.id = raw.id
        #: Where it was given up.
        self.stop = raw.stop
        #: How often it was started there; 0 where nobody could start it.
        self.attempts = raw.attempts
        #: rejected, failed, undeliverable, expired or other. Treat the set as open.
        self.cause = _code(raw.cause)
        #: For the operator; it may change.
        self.reason = raw.cause.value
        #: What the job carried, where that could be read.
        self.data = Payload(raw.data.content_type, raw.data.body) if raw.data else None


def done() -> _types.Outcome:
    """Nothing more is to be done. A caller that waits for a reply gets none."""
    return _types.Outcome_Done()


def forward(data: Any) -> _types.Outcome:
    """Hands a value to the next stop of the job's own route. At the last stop of a call it is the reply."""
    return _types.Outcome_Forward(_raw(Payload.of(data)))


def route(stops: str | Sequence[str], data: Any) -> _types.Outcome:
    """Sends the work on along a new route, each stop ``TYPE:*`` or the id of a worker."""
    return _types.Outcome_Route(_slip(stops, data))


_handle: Callable[[Job], _types.Outcome] | None = None
_treat: Callable[[JobError], None] | None = None
_description: _descriptor.Description | None = None


def worker(
    *,
    type: str,
    summary: str,
    version: str = "0.1.0",
    accepts: Sequence[str] = (),
    annotations: Mapping[str, str] | None = None,
):
    """Makes the function below it the worker of this type. It may run again for the same `job.id`, after a
    crash for instance: make effects idempotent by it. A `WorkerError` that it raises says whether the host
    tries again; any other exception is a bug, and ends the run as a trap.

    componentize-py looks for what a plugin exports in the function's module, so it is put there."""

    def take(function: Callable[[Job], _types.Outcome]):
        global _handle, _description
        _handle = function
        function.__globals__.update(Descriptor=_Descriptor, Handler=_Handler)
        _description = _descriptor.Description(
            worker_type=type,
            version=version,
            summary=summary,
            accepts=list(accepts),
            annotations=list((annotations or {}).items()),
        )
        return function

    return take


def treats_errors(function: Callable[[JobError], None]):
    """Makes the function below it hear of the jobs that this worker sent and that were given up. For the
    world `treating-worker`."""
    global _treat
    _treat = function
    function.__globals__["Errors"] = _Errors
    return function


class _Descriptor:
    def describe(self):
        return _description


class _Handler:
    def handle(self, job):
        try:
            outcome = _handle(Job(job))
        except WorkerError as error:
            failure = _failure(error)
        else:
            if isinstance(outcome, (_types.Outcome_Done, _types.Outcome_Forward, _types.Outcome_Route)):
                return outcome
            raise TypeError(f"the worker returned {outcome!r}; return done(), forward(…) or route(…)")
        raise _Err(failure)


class _Errors:
    def treat_error(self, error):
        try:
            return _treat(JobError(error))
        except WorkerError as refused:
            reason = str(refused)
        raise _Err(reason)


def _failure(error: WorkerError) -> _types.Failure:
    reason = str(error)
    if not error.is_retryable:
        return _types.Failure_Reject(reason)
    after_ms = None if error.after is None else max(0, round(error.after * 1000))
    return _types.Failure_Retry(_types.Retry(after_ms=after_ms, reason=reason))


# ---- What a worker may ask the host ----


class context:
    """What is known about the run in progress."""

    worker_id = staticmethod(_context.worker_id)
    #: How often this job has been started, this run included.
    attempt = staticmethod(_context.attempt)
    #: Milliseconds left until the host stops this run.
    deadline_ms = staticmethod(_context.deadline_ms)
    #: Whether the result of this run is already worthless.
    is_cancelled = staticmethod(_context.is_cancelled)
    header = staticmethod(_context.header)
    trace_parent = staticmethod(_context.trace_parent)


class bus:
    """Talking to other workers."""

    @staticmethod
    def send(stops: str | Sequence[str], data: Any) -> None:
        """Sends a job and does not wait for it. It goes out when this run has succeeded."""
        _ask(SendError, _bus.send, _slip(stops, data))

    @staticmethod
    def call(stops: str | Sequence[str], data: Any, timeout: float | None = None) -> Payload:
        """Sends a job at once and waits for the reply, 10 s unless the operator or `timeout` (in seconds)
        says otherwise."""
        timeout_ms = None if timeout is None else max(0, round(timeout * 1000))
        reply = _ask(CallError, _bus.call, _slip(stops, data), timeout_ms)
        return Payload(reply.content_type, reply.body)


def _to_sql(index: int, value: Any):
    if value is None:
        return _sql.Value_Null()
    if isinstance(value, bool):
        return _sql.Value_Boolean(value)
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise SqlError("invalid", f"parameter ${index} has more than 64 bits")
        return _sql.Value_Integer(value)
    if isinstance(value, float):
        return _sql.Value_Real(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _sql.Value_Blob(bytes(value))
    if isinstance(value, _datetime):
        # A time without a zone is a timestamp, one with it a timestamptz.
        aware = value.astimezone(_timezone.utc) if value.tzinfo else value
        return _sql.Value_Text(aware.isoformat())
    if isinstance(value, (str, _UUID, _Decimal)):
        return _sql.Value_Text(str(value))
    if isinstance(value, _date):
        return _sql.Value_Text(value.isoformat())
    raise SqlError("invalid", f"parameter ${index} is {type(value).__name__}: use str, int, float, bool, bytes or None")


class _Statements:
    def __init__(self, raw):
        self._raw = raw

    def query(self, statement: str, *parameters: Any) -> list[dict[str, Any]]:
        """Runs one statement that returns rows: a dictionary for each, by the names of the columns."""
        rows = _ask(SqlError, self._raw.query, statement, _parameters(parameters))
        return [
            {name: getattr(value, "value", None) for name, value in zip(rows.columns, row)}
            for row in rows.rows
        ]

    def execute(self, statement: str, *parameters: Any) -> int:
        """Runs one statement and returns how many rows it changed."""
        return _ask(SqlError, self._raw.execute, statement, _parameters(parameters))


def _parameters(parameters: Sequence[Any]) -> list:
    return [_to_sql(index, value) for index, value in enumerate(parameters, 1)]


class _Sql(_Statements):
    """A relational database. Parameters are written ``$1``, ``$2`` and follow the statement."""

    #: How often a transaction that met another one is begun anew before the job is.
    MAX_TRANSACTIONS = 5

    @staticmethod
    def dialect() -> str:
        """``sqlite`` or ``postgresql``."""
        return _sql.dialect()

    def transaction(self, work: Callable[[_Statements], Any]) -> Any:
        """Statements that take effect together, or not at all when `work` raises. `work` is called again
        where another transaction was in the way."""
        for n in range(1, self.MAX_TRANSACTIONS + 1):
            try:
                with _ask(SqlError, _sql.Transaction.begin) as raw:
                    try:
                        value = work(_Statements(raw))
                        _ask(SqlError, raw.commit)
                        return value
                    except BaseException:
                        # It may be over already: then there is nothing to undo.
                        try:
                            raw.rollback()
                        except _Err:
                            pass
                        raise
            except SqlError as error:
                if error.code != "conflict" or n == self.MAX_TRANSACTIONS:
                    raise


sql = _Sql(_sql)


class Bucket:
    """A bucket of keys and values. Closed at the end of a `with`, or when nobody has it any more."""

    #: How often `update` tries. Each time that one fails, another one has not.
    MAX_UPDATES = 1000

    def __init__(self, name: str = ""):
        self._bucket = _ask(KeyValueError, _store.open, name)

    def __enter__(self) -> Bucket:
        return self

    def __exit__(self, *exception) -> None:
        self._bucket.__exit__(*exception)

    def get(self, key: str) -> bytes | None:
        return _ask(KeyValueError, self._bucket.get, key)

    def get_json(self, key: str) -> Any:
        value = self.get(key)
        return None if value is None else _parsed(key, value)

    def set(self, key: str, value: str | bytes) -> None:
        """Writes a value, over another one if there is one. Text is written as UTF-8."""
        _ask(KeyValueError, self._bucket.set, key, _bytes(value))

    def set_json(self, key: str, value: Any) -> None:
        self.set(key, Payload.of(value).body)

    def delete(self, key: str) -> None:
        _ask(KeyValueError, self._bucket.delete, key)

    def exists(self, key: str) -> bool:
        return _ask(KeyValueError, self._bucket.exists, key)

    def keys(self) -> Iterator[str]:
        """All keys, in no particular order, read in pages as they are asked for."""
        cursor = None
        while True:
            page = _ask(KeyValueError, self._bucket.list_keys, cursor)
            yield from page.keys
            cursor = page.cursor
            if cursor is None:
                return

    def increment(self, key: str, by: int = 1) -> int:
        """Adds to the number under a key, in one step whoever else does, and returns the sum."""
        return _ask(KeyValueError, _atomics.increment, self._bucket, key, by)

    def update(self, key: str, change: Callable[[bytes | None], str | bytes]) -> bytes:
        """Puts what `change` makes of a value in its place. Called again where somebody wrote in between."""
        cas = _ask(KeyValueError, _atomics.Cas.new, self._bucket, key)
        for _ in range(self.MAX_UPDATES):
            value = _bytes(change(_ask(KeyValueError, cas.current)))
            try:
                _atomics.swap(cas, value)
                return value
            except _Err as error:
                refused = error.value
            if isinstance(refused, _atomics.CasError_StoreError):
                raise KeyValueError(_code(refused.value), getattr(refused.value, "value", ""))
            cas = refused.value
        raise Retry(f"others are always faster in writing the key `{key}`")

    def update_json(self, key: str, change: Callable[[Any], Any]) -> Any:
        def changed(value: bytes | None) -> bytes:
            before = None if value is None else _parsed(key, value)
            return Payload.of(change(before)).body

        return _parsed(key, self.update(key, changed))

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        pairs = _ask(KeyValueError, _batch.get_many, self._bucket, list(keys))
        return [pair and pair[1] for pair in pairs]

    def set_many(self, pairs: Mapping[str, str | bytes]) -> None:
        _ask(KeyValueError, _batch.set_many, self._bucket, [(key, _bytes(value)) for key, value in pairs.items()])

    def delete_many(self, keys: Sequence[str]) -> None:
        _ask(KeyValueError, _batch.delete_many, self._bucket, list(keys))


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)


def _parsed(key: str, value: bytes) -> Any:
    try:
        return _json.loads(value)
    except ValueError as error:
        raise Reject(f"unexpected value under the key `{key}`: {error}") from None


class keyvalue:
    """Keys and values of this worker type's own."""

    open = Bucket


class config:
    """What the operator has configured for this worker type, its secrets included."""

    @staticmethod
    def get(key: str) -> str | None:
        return _ask(ConfigError, _config.get, key)

    @staticmethod
    def parse(key: str, kind: Callable[[str], Any]) -> Any:
        """Reads one value by a function such as `int` or `float`; None where nothing is configured."""
        text = config.get(key)
        try:
            return None if text is None else kind(text)
        except ValueError as error:
            raise Reject(f"the configuration key `{key}` has the value `{text}`: {error}") from None

    @staticmethod
    def all() -> dict[str, str]:
        return dict(_ask(ConfigError, _config.get_all))


class log:
    """Lines for the host's log. `print` writes there, too."""

    @staticmethod
    def _line(level, message: object) -> None:
        context = _description.worker_type if _description else ""
        text = str(message).encode("utf-8", "replace").decode()
        _logging.log(level, context, text)

    @staticmethod
    def trace(message: object) -> None:
        log._line(_logging.Level.TRACE, message)

    @staticmethod
    def debug(message: object) -> None:
        log._line(_logging.Level.DEBUG, message)

    @staticmethod
    def info(message: object) -> None:
        log._line(_logging.Level.INFO, message)

    @staticmethod
    def warn(message: object) -> None:
        log._line(_logging.Level.WARN, message)

    @staticmethod
    def error(message: object) -> None:
        log._line(_logging.Level.ERROR, message)


class metrics:
    """Figures of the worker's own, on the host's ``/metrics`` as ``warren_guest_<name>``."""

    @staticmethod
    def count(name: str, by: int = 1, **labels: Any) -> None:
        """Adds to a counter; its name ends with ``_total``."""
        _metrics.count(name, _labels(labels), max(0, int(by)))

    @staticmethod
    def observe(name: str, value: float, **labels: Any) -> None:
        """Adds an observation to a histogram, in the base unit that its name ends with."""
        _metrics.observe(name, _labels(labels), value)

    @staticmethod
    def gauge(name: str, value: float, **labels: Any) -> None:
        _metrics.gauge(name, _labels(labels), value)

    @staticmethod
    @_contextmanager
    def time(name: str, **labels: Any):
        """Observes how long the body of a `with` took; the name ends with ``_seconds``."""
        begun = _time.perf_counter()
        try:
            yield
        finally:
            metrics.observe(name, _time.perf_counter() - begun, **labels)


def _labels(labels: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(name, str(value)) for name, value in labels.items()]

"""Every address of the console: what it needs and who answers. An address without a row does not exist."""

from __future__ import annotations

from broker.console.pages import (
    dead,
    lanes,
    letters,
    login,
    operator_log,
    overview,
    people,
    replays,
    sessions,
    static,
    suppliers,
    trace,
)
from broker.console.rights import Right
from broker.console.table import Open, Row

ANYONE = Open.ANYONE
SEE, LANES, REPLAY, DISCARD, REVEAL = Right.SEE, Right.LANES, Right.REPLAY, Right.DISCARD, Right.REVEAL

TABLE: tuple[Row, ...] = (
    # who may come in
    Row("GET", "/static/{name}", ANYONE, static.file),
    Row("GET", "/login", ANYONE, login.ask),
    Row("POST", "/login", ANYONE, login.log_in),
    Row("GET", "/login/link/{link}", ANYONE, login.offer_link),
    Row("POST", "/login/link", ANYONE, login.take_link),
    Row("POST", "/logout", SEE, login.log_out),
    Row("GET", "/", SEE, overview.page, place="Overview"),
    Row("GET", "/events", SEE, overview.events, quiet=True),
    # dead letters: each act is shown before it is done
    Row("GET", "/dead", SEE, dead.listed, place="Dead letters"),
    Row("POST", "/dead", SEE, dead.search),
    Row("GET", "/dead/discard", DISCARD, letters.ask_discard),
    Row("POST", "/dead/discard", DISCARD, letters.discard),
    Row("GET", "/dead/restore", DISCARD, letters.ask_restore),
    Row("POST", "/dead/restore", DISCARD, letters.restore),
    Row("GET", "/dead/{id}", SEE, dead.one),
    Row("GET", "/dead/{id}/verify", REPLAY, letters.ask_verify),
    Row("POST", "/dead/{id}/verify", REPLAY, letters.verify),
    # replays
    Row("GET", "/replays", SEE, replays.listed, place="Replays"),
    Row("GET", "/replays/new", REPLAY, replays.ask),
    Row("POST", "/replays/new", REPLAY, replays.prepare),
    Row("GET", "/replays/{id}", SEE, replays.one),
    Row("POST", "/replays/{id}/start", REPLAY, replays.start),
    Row("POST", "/replays/{id}/stop", REPLAY, replays.stop),
    Row("POST", "/replays/{id}/resume", REPLAY, replays.resume),
    # suppliers
    Row("GET", "/suppliers", SEE, suppliers.listed, place="Suppliers"),
    Row("GET", "/suppliers/{supplier}", SEE, suppliers.one),
    Row("GET", "/suppliers/{supplier}/pause", LANES, lanes.ask_pause),
    Row("POST", "/suppliers/{supplier}/pause", LANES, lanes.pause),
    Row("GET", "/suppliers/{supplier}/resume", LANES, lanes.ask_resume),
    Row("POST", "/suppliers/{supplier}/resume", LANES, lanes.resume),
    Row("GET", "/suppliers/{supplier}/test", LANES, lanes.ask_test),
    Row("POST", "/suppliers/{supplier}/test", LANES, lanes.test),
    # stories
    Row("GET", "/trace", SEE, trace.ask, place="Trace"),
    Row("POST", "/trace", SEE, trace.look_up),
    Row("GET", "/trace/{id}", SEE, trace.story),
    # the operators' log
    Row("GET", "/log", SEE, operator_log.page, place="Operator log"),
    # personal data
    Row("GET", "/reveal/{id}", REVEAL, people.ask_reveal),
    Row("POST", "/reveal/{id}", REVEAL, people.reveal),
    Row("GET", "/find", REVEAL, people.ask_find, place="Find"),
    Row("POST", "/find", REVEAL, people.find),
    # the console itself
    Row("GET", "/sessions", Right.SESSIONS, sessions.listed, place="Sessions"),
    Row("POST", "/sessions/end", Right.SESSIONS, sessions.end),
)

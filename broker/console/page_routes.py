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
from broker.console.table import Open, PageRoute

ANYONE = Open.ANYONE
SEE, LANES, REPLAY, DISCARD, REVEAL = Right.SEE, Right.LANES, Right.REPLAY, Right.DISCARD, Right.REVEAL

TABLE: tuple[PageRoute, ...] = (
    # who may come in
    PageRoute("GET", "/static/{name}", ANYONE, static.file),
    PageRoute("GET", "/login", ANYONE, login.ask),
    PageRoute("POST", "/login", ANYONE, login.log_in),
    PageRoute("GET", "/login/link/{link}", ANYONE, login.offer_link),
    PageRoute("POST", "/login/link", ANYONE, login.take_link),
    PageRoute("POST", "/logout", SEE, login.log_out),
    PageRoute("GET", "/", SEE, overview.page, place="Overview"),
    PageRoute("GET", "/events", SEE, overview.events, quiet=True),
    # dead letters: each act is shown before it is done
    PageRoute("GET", "/dead", SEE, dead.listed, place="Dead letters"),
    PageRoute("POST", "/dead", SEE, dead.search),
    PageRoute("GET", "/dead/discard", DISCARD, letters.ask_discard),
    PageRoute("POST", "/dead/discard", DISCARD, letters.discard),
    PageRoute("GET", "/dead/restore", DISCARD, letters.ask_restore),
    PageRoute("POST", "/dead/restore", DISCARD, letters.restore),
    PageRoute("GET", "/dead/{id}", SEE, dead.one),
    PageRoute("GET", "/dead/{id}/verify", REPLAY, letters.ask_verify),
    PageRoute("POST", "/dead/{id}/verify", REPLAY, letters.verify),
    # replays
    PageRoute("GET", "/replays", SEE, replays.listed, place="Replays"),
    PageRoute("GET", "/replays/new", REPLAY, replays.ask),
    PageRoute("POST", "/replays/new", REPLAY, replays.prepare),
    PageRoute("GET", "/replays/{id}", SEE, replays.one),
    PageRoute("POST", "/replays/{id}/start", REPLAY, replays.start),
    PageRoute("POST", "/replays/{id}/stop", REPLAY, replays.stop),
    PageRoute("POST", "/replays/{id}/resume", REPLAY, replays.resume),
    # suppliers
    PageRoute("GET", "/suppliers", SEE, suppliers.listed, place="Suppliers"),
    PageRoute("GET", "/suppliers/{supplier}", SEE, suppliers.one),
    PageRoute("GET", "/suppliers/{supplier}/pause", LANES, lanes.ask_pause),
    PageRoute("POST", "/suppliers/{supplier}/pause", LANES, lanes.pause),
    PageRoute("GET", "/suppliers/{supplier}/resume", LANES, lanes.ask_resume),
    PageRoute("POST", "/suppliers/{supplier}/resume", LANES, lanes.resume),
    PageRoute("GET", "/suppliers/{supplier}/test", LANES, lanes.ask_test),
    PageRoute("POST", "/suppliers/{supplier}/test", LANES, lanes.test),
    # stories
    PageRoute("GET", "/trace", SEE, trace.ask, place="Trace"),
    PageRoute("POST", "/trace", SEE, trace.look_up),
    PageRoute("GET", "/trace/{id}", SEE, trace.story),
    # the operators' log
    PageRoute("GET", "/log", SEE, operator_log.page, place="Operator log"),
    # personal data
    PageRoute("GET", "/reveal/{id}", REVEAL, people.ask_reveal),
    PageRoute("POST", "/reveal/{id}", REVEAL, people.reveal),
    PageRoute("GET", "/find", REVEAL, people.ask_find, place="Find"),
    PageRoute("POST", "/find", REVEAL, people.find),
    # the console itself
    PageRoute("GET", "/sessions", Right.SESSIONS, sessions.listed, place="Sessions"),
    PageRoute("POST", "/sessions/end", Right.SESSIONS, sessions.end),
)

"""All addresses of the console, each with the right it needs and its handler. There are no other addresses."""

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
    # login and static files
    PageRoute("GET", "/static/{name}", ANYONE, static.file),
    PageRoute("GET", "/login", ANYONE, login.login_form),
    PageRoute("POST", "/login", ANYONE, login.log_in),
    PageRoute("GET", "/login/link/{link}", ANYONE, login.link_form),
    PageRoute("POST", "/login/link", ANYONE, login.redeem_link),
    PageRoute("POST", "/logout", SEE, login.log_out),
    PageRoute("GET", "/", SEE, overview.page, title="Overview"),
    PageRoute("GET", "/events", SEE, overview.events, background=True),
    # dead letters: a page shows each act before it is done
    PageRoute("GET", "/dead", SEE, dead.listing, title="Dead letters"),
    PageRoute("POST", "/dead", SEE, dead.search),
    PageRoute("GET", "/dead/discard", DISCARD, letters.confirm_discard),
    PageRoute("POST", "/dead/discard", DISCARD, letters.discard),
    PageRoute("GET", "/dead/restore", DISCARD, letters.confirm_restore),
    PageRoute("POST", "/dead/restore", DISCARD, letters.restore),
    PageRoute("GET", "/dead/{id}", SEE, dead.detail),
    PageRoute("GET", "/dead/{id}/verify", REPLAY, letters.confirm_verify),
    PageRoute("POST", "/dead/{id}/verify", REPLAY, letters.verify),
    # replays
    PageRoute("GET", "/replays", SEE, replays.listing, title="Replays"),
    PageRoute("GET", "/replays/new", REPLAY, replays.new),
    PageRoute("POST", "/replays/new", REPLAY, replays.prepare),
    PageRoute("GET", "/replays/{id}", SEE, replays.detail),
    PageRoute("POST", "/replays/{id}/start", REPLAY, replays.start),
    PageRoute("POST", "/replays/{id}/stop", REPLAY, replays.stop),
    PageRoute("POST", "/replays/{id}/resume", REPLAY, replays.resume),
    # suppliers
    PageRoute("GET", "/suppliers", SEE, suppliers.listing, title="Suppliers"),
    PageRoute("GET", "/suppliers/{supplier}", SEE, suppliers.detail),
    PageRoute("GET", "/suppliers/{supplier}/pause", LANES, lanes.confirm_pause),
    PageRoute("POST", "/suppliers/{supplier}/pause", LANES, lanes.pause),
    PageRoute("GET", "/suppliers/{supplier}/resume", LANES, lanes.confirm_resume),
    PageRoute("POST", "/suppliers/{supplier}/resume", LANES, lanes.resume),
    PageRoute("GET", "/suppliers/{supplier}/test", LANES, lanes.confirm_test),
    PageRoute("POST", "/suppliers/{supplier}/test", LANES, lanes.send_test),
    # trace
    PageRoute("GET", "/trace", SEE, trace.search_form, title="Trace"),
    PageRoute("POST", "/trace", SEE, trace.search),
    PageRoute("GET", "/trace/{id}", SEE, trace.detail),
    # the operators' log
    PageRoute("GET", "/log", SEE, operator_log.page, title="Operator log"),
    # personal data
    PageRoute("GET", "/reveal/{id}", REVEAL, people.reveal_form),
    PageRoute("POST", "/reveal/{id}", REVEAL, people.reveal),
    PageRoute("GET", "/find", REVEAL, people.find_form, title="Find"),
    PageRoute("POST", "/find", REVEAL, people.find),
    # the console itself
    PageRoute("GET", "/sessions", Right.SESSIONS, sessions.listing, title="Sessions"),
    PageRoute("POST", "/sessions/end", Right.SESSIONS, sessions.end),
)

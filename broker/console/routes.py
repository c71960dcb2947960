"""Every address of the console: what it needs and who answers. An address without a row does not exist."""

from __future__ import annotations

from broker.console.pages import login, operator_log, overview, static, trace
from broker.console.rights import Right
from broker.console.table import Open, Row

ANYONE = Open.ANYONE
SEE = Right.SEE

TABLE: tuple[Row, ...] = (
    # who may come in
    Row("GET", "/static/{name}", ANYONE, static.file),
    Row("GET", "/login", ANYONE, login.ask),
    Row("POST", "/login", ANYONE, login.log_in),
    Row("GET", "/login/link/{link}", ANYONE, login.offer_link),
    Row("POST", "/login/link", ANYONE, login.take_link),
    Row("POST", "/logout", SEE, login.log_out),
    Row("GET", "/", SEE, overview.page, place="Overview"),
    # stories
    Row("GET", "/trace", SEE, trace.ask, place="Trace"),
    Row("POST", "/trace", SEE, trace.look_up),
    Row("GET", "/trace/{id}", SEE, trace.story),
    # the operators' log
    Row("GET", "/log", SEE, operator_log.page, place="Operator log"),
)

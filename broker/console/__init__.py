"""The operators' console: web pages over `broker/ops.py`, served by its own process. No page reads the ledger directly.

To add a page: write a handler `async def page(request) -> web.StreamResponse` in `pages/` that ends with
`render("name.html", request, …)`, a row in `page_routes.py` with the right it needs (and a title for the navigation),
and a template in `templates/` that extends `base.html`. The console does not start if an address has no row.

A handler finds the open operations as `request.app[OPERATIONS]` and the user as `user_of(request)`. Acts call `ops`
with `actor_of(request)`; they are sent by POST, with the macros of `_forms.html`.
"""

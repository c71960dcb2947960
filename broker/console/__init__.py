"""The operators' console: web pages over `ops`, in a process of its own. No page reaches the ledger by itself.

A page is one handler, one row and one template: an `async def page(request) -> web.StreamResponse` in
`pages/` that ends with `render("name.html", request, …)`; a row in `routes.py` with the right that it needs (and a
name for the navigation); a template in `templates/` that extends `base.html`. The console does not start while an
address has no row. Handlers find the ledger's desk as `request.app[DESK]` and the user as `who(request)`; an act
goes through `ops` with `actor(request)`, by POST, with the macros of `_forms.html`.
"""
